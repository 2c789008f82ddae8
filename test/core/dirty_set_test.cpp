// The dirty set against a slow, obvious model, and its bounds.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/dirty_set.h"

namespace session_store::core {
namespace {

using std::chrono::milliseconds;

DirtySet::TimePoint at(int ms) {
	return DirtySet::TimePoint{} + milliseconds{ms};
}

std::vector<std::string> take(DirtySet &set, std::size_t max) {
	std::vector<std::string> keys;
	const std::size_t count = set.take(max);
	for (std::size_t i = 0; i < count; i++)
		keys.emplace_back(set.key(i));
	return keys;
}

TEST(DirtySet, KeepsTheOrderOfTheFirstMark) {
	DirtySet set({});
	EXPECT_TRUE(set.mark("b", at(1)));
	EXPECT_TRUE(set.mark("a", at(2)));
	EXPECT_FALSE(set.mark("b", at(3)));
	EXPECT_EQ(set.size(), 2U);
	EXPECT_EQ(take(set, 9), (std::vector<std::string>{"b", "a"}));
}

TEST(DirtySet, AKeyMarkedInFlightIsDirtyAgainAfterCommit) {
	DirtySet set({});
	set.mark("k", at(1));
	ASSERT_EQ(set.take(1), 1U);
	EXPECT_TRUE(set.mark("k", at(5)));
	EXPECT_EQ(set.oldest_age(at(10)), milliseconds{9});
	set.commit();
	EXPECT_EQ(set.size(), 1U);
	EXPECT_EQ(set.in_flight(), 0U);
	EXPECT_EQ(set.oldest_age(at(10)), milliseconds{5});
}

TEST(DirtySet, PuttingBackAKeyMarkedAgainKeepsOneAndTheEarlierTime) {
	DirtySet set({});
	set.mark("k", at(1));
	set.take(1);
	set.mark("k", at(5));
	set.put_back(0);
	set.commit();
	EXPECT_EQ(set.size(), 1U);
	EXPECT_EQ(set.oldest_age(at(10)), milliseconds{9});
	EXPECT_EQ(set.bytes(), 1 + DirtySet::kEntryBytes);
}

TEST(DirtySet, ATakeWithoutCommitLosesNothing) {
	DirtySet set({});
	set.mark("a", at(1));
	set.mark("b", at(1));
	EXPECT_EQ(take(set, 1), (std::vector<std::string>{"a"}));
	EXPECT_EQ(take(set, 2), (std::vector<std::string>{"b", "a"}));
}

TEST(DirtySet, UntakenKeysComeNextInTheSameOrder) {
	DirtySet set({});
	for (const char *key : {"a", "b", "c", "d"})
		set.mark(key, at(1));
	set.take(3);
	set.untake_from(1);
	EXPECT_EQ(set.in_flight(), 1U);
	set.commit();
	EXPECT_EQ(take(set, 9), (std::vector<std::string>{"b", "c", "d"}));
}

TEST(DirtySet, KnowsWhetherOnlyHintsAskedForAKey) {
	DirtySet set({});
	const auto only_hinted = [&set] {
		EXPECT_EQ(set.take(1), 1U);
		return set.only_hinted(0);
	};
	set.hint("k", at(1));
	set.hint("k", at(1));
	EXPECT_TRUE(only_hinted());
	set.hint("k", at(2));
	set.commit();
	EXPECT_TRUE(only_hinted()) << "hinted at while it was in flight";
	set.put_back(0);
	set.hint("k", at(3));
	set.commit();
	EXPECT_FALSE(only_hinted()) << "it was put back";
	set.put_back_all();
	EXPECT_FALSE(only_hinted());
	set.hint("k", at(4));
	set.put_back_all();
	EXPECT_FALSE(only_hinted()) << "and hinted at before";
	set.commit();
	set.hint("k", at(5));
	set.mark("k", at(5));
	EXPECT_FALSE(only_hinted());
	set.commit();
	set.mark("k", at(6));
	set.hint("k", at(6));
	EXPECT_FALSE(only_hinted());
	set.commit();
	set.hint_evicted("k", at(7), true);
	set.hint("k", at(7));
	EXPECT_FALSE(only_hinted());
	set.hint("a", at(8));
	set.commit();
	set.hint("b", at(8));
	EXPECT_EQ(set.take(2), 2U);
	set.untake_from(1);
	set.commit();
	EXPECT_TRUE(only_hinted()) << "it was not read";
}

TEST(DirtySet, WhatIsDroppedIsForgottenAndTheRestClosesUp) {
	DirtySet set({});
	for (const char *key : {"a", "b", "c", "d", "e"})
		set.hint(key, at(1));
	set.take(9);
	const std::string_view third = set.key(2);
	set.hint("b", at(2));
	set.put_back(3);
	set.drop({0, 1, 3});
	EXPECT_EQ(set.batch_size(), 2U);
	EXPECT_EQ(set.in_flight(), 2U);
	EXPECT_EQ(set.key(0), "c");
	EXPECT_EQ(set.key(0).data(), third.data());
	EXPECT_EQ(set.key(1), "e");
	EXPECT_EQ(take(set, 9), (std::vector<std::string>{"b", "d", "c", "e"}));
	set.commit();
	EXPECT_TRUE(set.idle());
	EXPECT_EQ(set.bytes(), 0U);
	EXPECT_TRUE(set.settled_since(at(9)));
}

TEST(DirtySet, StopsGrowingAtTheNumberOfKeys) {
	DirtySet set({2, 1 << 20});
	set.mark("a", at(1));
	set.take(1);
	set.mark("b", at(1));
	EXPECT_FALSE(set.overflowed());
	EXPECT_FALSE(set.mark("c", at(1)));
	EXPECT_TRUE(set.overflowed());
	EXPECT_EQ(set.size() + set.in_flight(), 2U);
	set.clear_overflow();
	set.commit();
	EXPECT_TRUE(set.mark("c", at(1)));
	EXPECT_FALSE(set.overflowed());
}

TEST(DirtySet, StopsGrowingAtTheNumberOfBytes) {
	DirtySet set({100, 2 * DirtySet::kEntryBytes + 10});
	EXPECT_TRUE(set.mark("12345", at(1)));
	EXPECT_FALSE(set.mark("123456", at(1)));
	EXPECT_TRUE(set.overflowed());
	EXPECT_TRUE(set.mark("54321", at(1)));
	EXPECT_EQ(set.bytes(), 2 * DirtySet::kEntryBytes + 10);
}

TEST(DirtySet, IsSettledOnceWhatWasMarkedBeforeIsCommitted) {
	DirtySet set({});
	set.mark("a", at(1));
	EXPECT_FALSE(set.settled_since(at(2)));
	set.take(1);
	EXPECT_FALSE(set.settled_since(at(2)));
	set.mark("b", at(3));
	set.commit();
	EXPECT_TRUE(set.settled_since(at(2)));
	EXPECT_FALSE(set.settled_since(at(3)));
}

// A model with plain vectors: dirty in order, in flight in order, each with its time.
struct Model {
	struct Entry {
		std::string key;
		int marked;
	};
	std::vector<Entry> dirty;
	std::vector<Entry> batch;
	std::vector<bool> settled;

	Entry *find(const std::string &key) {
		const auto found = std::find_if(
			dirty.begin(), dirty.end(), [&](const Entry &entry) { return entry.key == key; });
		return found == dirty.end() ? nullptr : &*found;
	}
	void mark(const std::string &key, int now) {
		if (find(key) == nullptr)
			dirty.push_back({key, now});
	}
	void give_back(std::size_t i, bool front) {
		if (settled[i])
			return;
		settled[i] = true;
		if (Entry *present = find(batch[i].key))
			present->marked = std::min(present->marked, batch[i].marked);
		else
			dirty.insert(front ? dirty.begin() : dirty.end(), batch[i]);
	}
	void put_back_all() {
		for (std::size_t i = 0; i < batch.size(); i++)
			give_back(i, false);
		commit();
	}
	void commit() {
		batch.clear();
		settled.clear();
	}
	void take(std::size_t max) {
		put_back_all();
		const std::size_t count = std::min(max, dirty.size());
		batch.assign(dirty.begin(), dirty.begin() + static_cast<std::ptrdiff_t>(count));
		dirty.erase(dirty.begin(), dirty.begin() + static_cast<std::ptrdiff_t>(count));
		settled.assign(count, false);
	}
	void untake_from(std::size_t index) {
		for (std::size_t i = batch.size(); i-- > index;)
			give_back(i, true);
		batch.resize(std::min(index, batch.size()));
		settled.resize(batch.size());
	}
	int oldest(int now) const {
		int age = 0;
		for (const Entry &entry : dirty)
			age = std::max(age, now - entry.marked);
		for (std::size_t i = 0; i < batch.size(); i++)
			if (!settled[i])
				age = std::max(age, now - batch[i].marked);
		return age;
	}
};

void expect_same(const DirtySet &set, const Model &model, int now) {
	ASSERT_EQ(set.size(), model.dirty.size());
	ASSERT_EQ(set.batch_size(), model.batch.size());
	ASSERT_EQ(static_cast<std::ptrdiff_t>(set.in_flight()),
		std::count(model.settled.begin(), model.settled.end(), false));
	std::size_t bytes = 0;
	for (const auto &entry : model.dirty)
		bytes += entry.key.size() + DirtySet::kEntryBytes;
	for (std::size_t i = 0; i < model.batch.size(); i++) {
		ASSERT_EQ(set.key(i), model.batch[i].key);
		if (!model.settled[i])
			bytes += model.batch[i].key.size() + DirtySet::kEntryBytes;
	}
	ASSERT_EQ(set.bytes(), bytes);
	ASSERT_EQ(set.oldest_age(at(now)).count(), model.oldest(now));
}

TEST(DirtySet, BehavesLikeItsModelUnderRandomWork) {
	for (unsigned seed = 1; seed <= 20; seed++) {
		std::mt19937 random(seed);
		const auto below = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
		DirtySet set({});
		Model model;
		for (int now = 1; now <= 3000; now++) {
			const auto index = static_cast<std::size_t>(below(8));
			switch (below(9)) {
			case 0:
				set.take(index);
				model.take(index);
				break;
			case 1:
				set.commit();
				model.commit();
				break;
			case 2:
				set.put_back_all();
				model.put_back_all();
				break;
			case 3:
				set.untake_from(index);
				model.untake_from(index);
				break;
			case 4:
				if (index < set.batch_size()) {
					set.put_back(index);
					model.give_back(index, false);
				}
				break;
			default: {
				const std::string key = std::string(20, 'k') + std::to_string(below(40));
				set.mark(key, at(now));
				model.mark(key, now);
			}
			}
			ASSERT_NO_FATAL_FAILURE(expect_same(set, model, now)) << "seed " << seed << " " << now;
		}
		std::vector<std::string> expected;
		model.put_back_all();
		for (const auto &entry : model.dirty)
			expected.push_back(entry.key);
		set.put_back_all();
		EXPECT_EQ(take(set, 1000), expected);
	}
}

TEST(DirtySet, PreparesABatchBesideTheOneInFlight) {
	DirtySet set({});
	for (const char *key : {"a", "b", "c", "d"})
		set.mark(key, at(1));
	EXPECT_EQ(set.take(2), 2U);
	set.mark("a", at(2)); // in flight: not before it is settled
	EXPECT_EQ(set.prepare(1), 1U);
	EXPECT_EQ(set.prepared_key(0), "c");
	EXPECT_EQ(set.prepare(5), 1U) << "there is one already";
	EXPECT_EQ(set.size(), 3U) << "prepared ones count as dirty";
	set.commit();
	EXPECT_EQ(set.advance(), 1U);
	EXPECT_EQ(set.key(0), "c");
	EXPECT_EQ(set.prepare(5), 2U);
	EXPECT_EQ(set.prepared_key(0), "d");
	EXPECT_EQ(set.prepared_key(1), "a");
	EXPECT_EQ(set.advance(), 2U) << "c, not settled, is put back";
	EXPECT_EQ(set.size(), 1U);
	set.commit();
	EXPECT_EQ(set.take(5), 1U);
	EXPECT_EQ(set.key(0), "c");
	set.commit();
	EXPECT_TRUE(set.idle());
	EXPECT_EQ(set.bytes(), 0U);
	EXPECT_EQ(set.oldest_age(at(100)), std::chrono::milliseconds::zero());
}

TEST(DirtySet, KeysInFlightKeepTheirOrderWhenSkipped) {
	DirtySet set({});
	for (const char *key : {"a", "b"})
		set.mark(key, at(1));
	set.take(2);
	for (const char *key : {"b", "a", "c", "d"})
		set.mark(key, at(2));
	EXPECT_EQ(set.prepare(1), 1U);
	EXPECT_EQ(set.prepared_key(0), "c");
	set.commit();
	set.advance();
	set.commit();
	EXPECT_EQ(set.take(9), 3U);
	EXPECT_EQ(set.key(0), "b");
	EXPECT_EQ(set.key(1), "a");
	EXPECT_EQ(set.key(2), "d");
}

TEST(DirtySet, PreparedKeysCountForTheLimit) {
	DirtySet set({3, 1'000'000});
	set.mark("a", at(1));
	set.mark("b", at(1));
	set.take(1);
	set.prepare(1);
	EXPECT_TRUE(set.mark("c", at(1)));
	EXPECT_FALSE(set.mark("d", at(1)));
	EXPECT_TRUE(set.overflowed());
}

TEST(DirtySet, AnEvictionIsKnownUntilTheKeyChangesAgain) {
	DirtySet set({});
	set.hint_evicted("a", at(1), true);
	set.hint("a", at(1)); // its own echo
	set.mark("a", at(1)); // a candidate of a comparison, no change
	set.hint_evicted("b", at(1), true);
	set.hint("b", at(1));
	set.hint("b", at(1)); // written again
	set.hint_evicted("c", at(1), false);
	set.hint("c", at(1));
	set.mark("d", at(1));
	ASSERT_EQ(set.take(9), 4U);
	EXPECT_TRUE(set.evicted(0));
	EXPECT_FALSE(set.evicted(1));
	EXPECT_FALSE(set.evicted(2));
	EXPECT_FALSE(set.evicted(3));
	set.hint_evicted("d", at(2), true);
	EXPECT_TRUE(set.evicted(3)) << "the event came after it was taken";
	set.put_back(0);
	set.commit();
	ASSERT_EQ(set.take(9), 2U);
	EXPECT_TRUE(set.evicted(0)) << "put back, it is remembered";
	EXPECT_TRUE(set.evicted(1));
}

} // namespace
} // namespace session_store::core
