// The keys that changed and have not been copied yet: deduplicated, bounded, in order of arrival.
//
// A key is dirty, in flight, or both: marking a key that is in flight makes it dirty again, since
// what is in flight was read before. Nothing is forgotten between take() and commit(): a batch
// that is neither committed nor put back goes back by itself at the next take().
//
// Beside the batch in flight a second one can be prepared, so that it is read while the first is
// applied. No key is in both. What is prepared counts as dirty until it is in flight.
//
// An entry also knows that Redis said it evicted the key. That is undone by a later change of it:
// not by the first hint, which is the eviction's own echo, but by the second. And it knows whether
// hints are all that asked for the key.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/cpp_only.h"

namespace session_store::core {

class DirtySet {
public:
	using Clock = std::chrono::steady_clock;
	using TimePoint = Clock::time_point;

	struct Limits {
		std::size_t max_keys = 500'000;
		std::size_t max_bytes = std::size_t{128} << 20; // keys and what keeping them costs
	};

	// What an entry costs beside the bytes of its key; part of bytes().
	static constexpr std::size_t kEntryBytes = 160;

	explicit DirtySet(Limits limits) : limits_(limits) {}
	DirtySet(const DirtySet &) = delete;
	DirtySet &operator=(const DirtySet &) = delete;

	// Makes the key dirty; true when it was not. At the limit it is not taken and overflowed()
	// becomes true: something was forgotten, so that only a full comparison helps.
	bool mark(std::string_view key, TimePoint now);
	// The same, because the key changed.
	bool hint(std::string_view key, TimePoint now);
	// The same, because Redis evicted it; whether a hint that says no more will follow.
	bool hint_evicted(std::string_view key, TimePoint now, bool echo_follows);

	// Prepares the oldest dirty keys, at most max, without those in flight. Returns how many; does
	// nothing while some are prepared.
	std::size_t prepare(std::size_t max);
	// Puts what is prepared in flight, after putting back what was in flight. Returns how many
	// there are; key(0) is the one that waited longest.
	std::size_t advance();
	// Both.
	std::size_t take(std::size_t max);

	// The index-th key in flight. The view is valid until commit(), put_back_all() or take().
	std::string_view key(std::size_t index) const { return batch_[index].node.key(); }
	// The index-th prepared key. The view stays valid while it is in flight.
	std::string_view prepared_key(std::size_t index) const { return next_[index].node.key(); }
	std::size_t prepared() const { return next_.size(); }
	// Whether Redis said that it evicted the index-th key in flight, before or after it was taken.
	bool evicted(std::size_t index) const;
	// Whether nothing but hints made the index-th key in flight dirty.
	bool only_hinted(std::size_t index) const { return batch_[index].node.mapped().only_hinted; }

	// Returns the keys in flight from index on, unread, to the front of the dirty ones. Their
	// views become invalid, and in_flight() becomes index.
	void untake_from(std::size_t index);

	// Forgets those keys of the batch, by their indexes in ascending order: there is nothing to
	// copy. The others close up; their views stay valid.
	void drop(const std::vector<std::size_t> &indexes);

	// Makes one key of the batch dirty again, behind the others, with the time it was first marked.
	void put_back(std::size_t index);
	void put_back_all();

	// Forgets what is in flight and was not put back: it has been copied.
	void commit();

	// Dirty keys, without those in flight.
	std::size_t size() const { return queue_.size() + next_.size(); }
	// Keys of the batch that were not put back.
	std::size_t in_flight() const { return unsettled_; }
	// Keys of the batch, put back or not.
	std::size_t batch_size() const { return batch_.size(); }
	bool idle() const { return size() == 0 && unsettled_ == 0; }
	std::size_t bytes() const { return bytes_; }

	bool overflowed() const { return overflowed_; }
	void clear_overflow() { overflowed_ = false; }

	// How long the longest waiting key, dirty or in flight, has waited, to the millisecond.
	std::chrono::milliseconds oldest_age(TimePoint now) const;
	// Whether every key that was marked at or before `time` has been copied.
	bool settled_since(TimePoint time) const;

private:
	struct KeyHash {
		using is_transparent = void;
		std::size_t operator()(std::string_view key) const {
			return std::hash<std::string_view>{}(key);
		}
	};
	enum class Eviction : std::uint8_t { none, echoed, announced };
	struct Entry {
		TimePoint marked;
		Eviction eviction = Eviction::none;
		bool only_hinted = false;
	};
	using Index = std::unordered_map<std::string, Entry, KeyHash, std::equal_to<>>;
	struct Taken {
		Index::node_type node; // keeps key(i) valid even when put back
		bool settled = false;
	};

	Entry *find_or_add(std::string_view key, TimePoint now, bool *added);
	void requeue(Taken &taken, bool front);
	void forget(const Taken &taken);
	void merge(Entry &present, const Entry &taken, std::size_t key_bytes);
	bool in_batch(std::string_view key) const { return batch_keys_.count(key) > 0; }
	void add_age(TimePoint marked);
	void drop_age(TimePoint marked);

	Limits limits_;
	Index index_;                                 // the dirty keys
	std::deque<const Index::value_type *> queue_; // the same, in order
	std::vector<Taken> batch_;                    // in flight
	std::vector<Taken> next_;                     // prepared
	std::unordered_set<std::string_view> batch_keys_;
	std::size_t unsettled_ = 0;
	std::size_t bytes_ = 0;
	std::map<std::chrono::milliseconds, std::size_t> ages_; // how many wait since when
	bool overflowed_ = false;
};

} // namespace session_store::core
