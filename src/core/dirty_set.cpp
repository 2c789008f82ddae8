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
	if (index_.find(key) != index_.end())
		return false;
	const std::size_t cost = key.size() + kEntryBytes;
	if (index_.size() + unsettled_ >= limits_.max_keys || bytes_ + cost > limits_.max_bytes) {
		overflowed_ = true;
		return false;
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
	return true;
}

std::size_t DirtySet::take(std::size_t max) {
	put_back_all();
	const std::size_t count = std::min(max, queue_.size());
	batch_.reserve(count);
	for (std::size_t i = 0; i < count; i++) {
		const auto entry = index_.find(queue_.front()->first);
		queue_.pop_front();
		batch_.push_back(Taken{index_.extract(entry), false});
	}
	unsettled_ = count;
	return count;
}

void DirtySet::untake_from(std::size_t index) {
	while (batch_.size() > index) {
		if (!batch_.back().settled) {
			requeue(batch_.back(), true);
			unsettled_--;
		}
		batch_.pop_back();
	}
}

void DirtySet::put_back(std::size_t index) {
	Taken &taken = batch_.at(index);
	if (taken.settled)
		return;
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
		drop_age(std::max(entry->second.marked, taken.node.mapped().marked));
		entry->second.marked = std::min(entry->second.marked, taken.node.mapped().marked);
		bytes_ -= key.size() + kEntryBytes;
	}
	taken.settled = true;
	unsettled_--;
}

void DirtySet::put_back_all() {
	for (Taken &taken : batch_)
		if (!taken.settled) {
			requeue(taken, false);
			taken.settled = true;
			unsettled_--;
		}
	batch_.clear();
}

void DirtySet::commit() {
	for (const Taken &taken : batch_)
		if (!taken.settled) {
			drop_age(taken.node.mapped().marked);
			bytes_ -= taken.node.key().size() + kEntryBytes;
		}
	batch_.clear();
	unsettled_ = 0;
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
	Entry &present = result.position->second;
	const TimePoint taken_marked = result.node.mapped().marked;
	drop_age(std::max(present.marked, taken_marked));
	present.marked = std::min(present.marked, taken_marked);
	bytes_ -= result.node.key().size() + kEntryBytes;
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
