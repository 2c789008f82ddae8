// The dirty set: a hash index for "is it there", a queue for the order, a count per time for ages.

#include <algorithm>
#include <utility>

#include "core/dirty_set.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

std::chrono::milliseconds to_millis(DirtySet::TimePoint time) {
	return std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch());
}

} // namespace

bool DirtySet::mark(std::string_view key, TimePoint now) {
	bool added = false;
	Entry *entry = find_or_add(key, now, &added);
	if (entry != nullptr)
		entry->only_hinted = false;
	return added;
}

bool DirtySet::hint(std::string_view key, TimePoint now) {
	bool added = false;
	Entry *entry = find_or_add(key, now, &added);
	if (entry == nullptr)
		return added;
	if (added)
		entry->only_hinted = true;
	else
		entry->eviction =
			entry->eviction == Eviction::announced ? Eviction::echoed : Eviction::none;
	return added;
}

bool DirtySet::hint_evicted(std::string_view key, TimePoint now, bool echo_follows) {
	bool added = false;
	Entry *entry = find_or_add(key, now, &added);
	if (entry == nullptr)
		return added;
	entry->eviction = echo_follows ? Eviction::announced : Eviction::echoed;
	entry->only_hinted = false;
	return added;
}

// Null when there is no room.
DirtySet::Entry *DirtySet::find_or_add(std::string_view key, TimePoint now, bool *added) {
	*added = false;
	const auto found = index_.find(key);
	if (found != index_.end())
		return &found->second;
	const std::size_t cost = key.size() + kEntryBytes;
	if (index_.size() + unsettled_ + next_.size() >= limits_.max_keys ||
		bytes_ + cost > limits_.max_bytes) {
		overflowed_ = true;
		return nullptr;
	}
	const auto entry = index_.emplace(std::string(key), Entry{now}).first;
	try {
		queue_.push_back(&*entry);
		add_age(now);
	} catch (...) {
		if (!queue_.empty() && queue_.back() == &*entry)
			queue_.pop_back();
		index_.erase(entry);
		throw;
	}
	bytes_ += cost;
	*added = true;
	return &entry->second;
}

std::size_t DirtySet::prepare(std::size_t max) {
	if (!next_.empty())
		return next_.size();
	next_.reserve(std::min(max, queue_.size()));
	std::size_t at = 0; // those before it are in flight, and stay
	while (next_.size() < max && at < queue_.size()) {
		const Index::value_type *entry = queue_[at];
		if (in_batch(entry->first)) {
			at++;
			continue;
		}
		std::rotate(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(at),
			queue_.begin() + static_cast<std::ptrdiff_t>(at) + 1);
		queue_.pop_front();
		next_.push_back(Taken{index_.extract(entry->first), false});
	}
	return next_.size();
}

std::size_t DirtySet::advance() {
	put_back_all();
	for (const Taken &taken : next_)
		batch_keys_.insert(taken.node.key());
	batch_.swap(next_);
	unsettled_ = batch_.size();
	return unsettled_;
}

std::size_t DirtySet::take(std::size_t max) {
	put_back_all();
	(void)prepare(max);
	return advance();
}

bool DirtySet::evicted(std::size_t index) const {
	if (batch_[index].node.mapped().eviction != Eviction::none)
		return true;
	const auto again = index_.find(key(index));
	return again != index_.end() && again->second.eviction != Eviction::none;
}

void DirtySet::untake_from(std::size_t index) {
	while (batch_.size() > index) {
		batch_keys_.erase(batch_.back().node.key());
		if (!batch_.back().settled) {
			requeue(batch_.back(), true);
			unsettled_--;
		}
		batch_.pop_back();
	}
}

void DirtySet::drop(const std::vector<std::size_t> &indexes) {
	std::size_t kept = 0;
	auto next = indexes.begin();
	for (std::size_t i = 0; i < batch_.size(); i++) {
		if (next != indexes.end() && *next == i) {
			next++;
			batch_keys_.erase(batch_[i].node.key());
			if (!batch_[i].settled) {
				forget(batch_[i]);
				unsettled_--;
			}
		} else {
			if (kept != i)
				batch_[kept] = std::move(batch_[i]);
			kept++;
		}
	}
	batch_.erase(batch_.begin() + static_cast<std::ptrdiff_t>(kept), batch_.end());
}

void DirtySet::put_back(std::size_t index) {
	Taken &taken = batch_.at(index);
	if (taken.settled)
		return;
	taken.node.mapped().only_hinted = false; // somebody wants it for a reason of their own
	// The batch keeps its own node, so that key(index) stays valid whatever becomes of the other.
	const std::string &key = taken.node.key();
	const auto [entry, inserted] = index_.emplace(key, taken.node.mapped());
	if (inserted) {
		try {
			queue_.push_back(&*entry);
		} catch (...) {
			index_.erase(entry);
			throw;
		}
	} else { // marked again meanwhile: one entry, with the earlier time
		merge(entry->second, taken.node.mapped(), key.size());
	}
	taken.settled = true;
	unsettled_--;
}

void DirtySet::put_back_all() {
	batch_keys_.clear();
	for (Taken &taken : batch_)
		if (!taken.settled) {
			taken.node.mapped().only_hinted = false;
			requeue(taken, false);
			taken.settled = true;
			unsettled_--;
		}
	batch_.clear();
}

void DirtySet::commit() {
	for (const Taken &taken : batch_)
		if (!taken.settled)
			forget(taken);
	batch_keys_.clear();
	batch_.clear();
	unsettled_ = 0;
}

void DirtySet::forget(const Taken &taken) {
	drop_age(taken.node.mapped().marked);
	bytes_ -= taken.node.key().size() + kEntryBytes;
}

std::chrono::milliseconds DirtySet::oldest_age(TimePoint now) const {
	if (ages_.empty())
		return std::chrono::milliseconds::zero();
	return std::max(to_millis(now) - ages_.begin()->first, std::chrono::milliseconds::zero());
}

bool DirtySet::settled_since(TimePoint time) const {
	return ages_.empty() || ages_.begin()->first > to_millis(time);
}

// Moves a taken key back into the index, unless it was marked again meanwhile: then the entry that
// is there stays, and remembers the earlier time.
void DirtySet::requeue(Taken &taken, bool front) {
	auto result = index_.insert(std::move(taken.node));
	if (result.inserted) {
		const Index::value_type *entry = &*result.position;
		try {
			if (front)
				queue_.push_front(entry);
			else
				queue_.push_back(entry);
		} catch (...) { // the key would never be taken again: say that one was forgotten
			overflowed_ = true;
			throw;
		}
		return;
	}
	merge(result.position->second, result.node.mapped(), result.node.key().size());
}

// Two entries of one key become one.
void DirtySet::merge(Entry &present, const Entry &taken, std::size_t key_bytes) {
	drop_age(std::max(present.marked, taken.marked));
	present.marked = std::min(present.marked, taken.marked);
	present.eviction = std::max(present.eviction, taken.eviction);
	present.only_hinted = present.only_hinted && taken.only_hinted;
	bytes_ -= key_bytes + kEntryBytes;
}

void DirtySet::add_age(TimePoint marked) {
	ages_[to_millis(marked)]++;
}

void DirtySet::drop_age(TimePoint marked) {
	const auto age = ages_.find(to_millis(marked));
	if (--age->second == 0)
		ages_.erase(age);
}

} // namespace session_store::core
