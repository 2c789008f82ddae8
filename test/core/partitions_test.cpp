// Where partitions begin and end, which are made and which are over.

#include <gtest/gtest.h>

#include <vector>

#include "core/partitions.h"

namespace session_store::core {
namespace {

constexpr PartitionInterval kHour{kMicrosPerHour, false};
constexpr PartitionInterval kDay{kMicrosPerDay, false};
constexpr PartitionInterval kWeek{7 * kMicrosPerDay, false};
constexpr PartitionInterval kMonth{0, true};

// 2026-11-25 03:00 UTC, a Wednesday.
constexpr Micros kNow = 9825 * kMicrosPerDay + 3 * kMicrosPerHour;

std::string named(Micros time, PartitionInterval interval) {
	return range_name(range_of(time, interval));
}

PartitionRule rule_of(PartitionInterval interval, Micros ttl, int ahead = 4) {
	return {interval, ahead, ttl, 0};
}

// All the ranges that maintenance would make from these on.
std::vector<PartitionRange> made(
	const PartitionRule &rule, std::vector<PartitionRange> ranges, Micros now) {
	while (auto range = missing_range(rule, ranges, now, horizon(rule, now))) {
		auto at = ranges.begin();
		while (at != ranges.end() && at->from < range->from)
			++at;
		ranges.insert(at, *range);
		if (ranges.size() > 1000)
			break;
	}
	return ranges;
}

void expect_contiguous(const std::vector<PartitionRange> &ranges) {
	for (std::size_t i = 1; i < ranges.size(); i++)
		EXPECT_EQ(ranges[i - 1].to, ranges[i].from) << i;
}

TEST(Partitions, BeginInUtcAtMidnightOnMondayOnTheFirst) {
	EXPECT_EQ(named(kNow, kHour), "20261125t0300_20261125t0400");
	EXPECT_EQ(named(kNow, kDay), "20261125_20261126");
	EXPECT_EQ(named(kNow, kWeek), "20261123_20261130");
	EXPECT_EQ(named(kNow, kMonth), "20261101_20261201");
	EXPECT_EQ(named(kNow + 10 * kMicrosPerDay, kMonth), "20261201_20270101");
	EXPECT_EQ(named(kNow, {90 * kMicrosPerMinute, false}), "20261125t0300_20261125t0430");
}

TEST(Partitions, ABoundBelongsToTheLaterOne) {
	const PartitionRange day = range_of(kNow, kDay);
	EXPECT_EQ(range_of(day.from, kDay), day);
	EXPECT_EQ(range_of(day.to - 1, kDay), day);
	EXPECT_EQ(range_of(day.to, kDay).from, day.to);
}

TEST(Partitions, LeapYearsAndTimesBefore2000) {
	EXPECT_EQ(named(range_of(kNow, kMonth).from, kMonth), "20261101_20261201");
	const Micros february_2028 = 10258 * kMicrosPerDay;
	EXPECT_EQ(named(february_2028, kMonth), "20280201_20280301");
	EXPECT_EQ(range_of(february_2028, kMonth).to - range_of(february_2028, kMonth).from,
		29 * kMicrosPerDay);
	EXPECT_EQ(named(-1, kDay), "19991231_20000101");
	EXPECT_EQ(named(-1, kMonth), "19991201_20000101");
	EXPECT_EQ(named(-1, kWeek), "19991227_20000103");
}

TEST(Partitions, LiteralsNameTheTimeZone) {
	EXPECT_EQ(bound_literal(range_of(kNow, kHour).to), "2026-11-25 04:00:00+00");
	EXPECT_EQ(bound_literal(0), "2000-01-01 00:00:00+00");
}

TEST(Partitions, IntervalsAreFromAnHourToAMonth) {
	EXPECT_TRUE(is_valid(kHour));
	EXPECT_TRUE(is_valid(kMonth));
	EXPECT_TRUE(is_valid({31 * kMicrosPerDay, false}));
	EXPECT_FALSE(is_valid({kMicrosPerHour - kMicrosPerMinute, false}));
	EXPECT_FALSE(is_valid({32 * kMicrosPerDay, false}));
	EXPECT_FALSE(is_valid({kMicrosPerHour + 1, false}));
	EXPECT_FALSE(is_valid({-kMicrosPerDay, false}));
}

TEST(Partitions, ReachTheDefaultTtlAndSomeMore) {
	EXPECT_EQ(
		horizon(rule_of(kDay, kMicrosPerDay), kNow), range_of(kNow, kDay).to + 5 * kMicrosPerDay);
	EXPECT_EQ(range_name(range_of(horizon(rule_of(kMonth, kMicrosPerDay), kNow), kMonth)),
		"20270401_20270501");
	EXPECT_EQ(horizon(rule_of(kHour, 90 * kMicrosPerDay), kNow),
		range_of(kNow, kHour).from + kMostLivePartitions * kMicrosPerHour);
}

TEST(Partitions, AreMadeOneByOneWithoutGaps) {
	const PartitionRule rule = rule_of(kHour, 5 * kMicrosPerHour, 3);
	const auto ranges = made(rule, {}, kNow);
	EXPECT_EQ(ranges.size(), 9U);
	EXPECT_EQ(ranges.front(), range_of(kNow, kHour));
	expect_contiguous(ranges);
	EXPECT_EQ(made(rule, ranges, kNow), ranges);
	EXPECT_EQ(made(rule, ranges, kNow + kMicrosPerHour).size(), 10U);
}

TEST(Partitions, FillTheGapsThatOthersLeave) {
	const PartitionRule rule = rule_of(kDay, kMicrosPerDay, 2);
	// A dropped one, and neighbours of another length.
	const Micros start = range_of(kNow, kDay).from;
	const auto ranges = made(rule,
		{{start + 6 * kMicrosPerHour, start + 7 * kMicrosPerHour},
			{start + kMicrosPerDay, start + 2 * kMicrosPerDay}},
		kNow);
	expect_contiguous(ranges);
	EXPECT_EQ(ranges.front().from, start);
	EXPECT_EQ(ranges.back().to, horizon(rule, kNow));
}

TEST(Partitions, AreOverWhenTheLastSessionIsPastItsGrace) {
	const PartitionRange day = range_of(kNow, kDay);
	EXPECT_FALSE(is_over(day, 0, day.to - 1));
	EXPECT_TRUE(is_over(day, 0, day.to));
	EXPECT_FALSE(is_over(day, kMicrosPerHour, day.to + kMicrosPerHour - 1));
	EXPECT_TRUE(is_over(day, kMicrosPerHour, day.to + kMicrosPerHour));
}

TEST(Partitions, TooManyOfThemGetABetterInterval) {
	const PartitionRule month_of_hours = rule_of(kHour, 30 * kMicrosPerDay);
	EXPECT_GT(live_partitions(month_of_hours, kNow), kMostLivePartitions);
	EXPECT_STREQ(better_interval(month_of_hours, kNow), "1 day");
	EXPECT_STREQ(better_interval(rule_of(kHour, 5 * kMicrosPerDay), kNow), "6 hours");
	EXPECT_STREQ(better_interval(rule_of(kHour, 3650 * kMicrosPerDay), kNow), "1 month");
	EXPECT_LE(live_partitions(rule_of(kDay, kMicrosPerDay), kNow), 6);
}

} // namespace
} // namespace session_store::core
