// Partitions by expiry: where one ends and the next begins, which are to be made, which are over.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace session_store::core {

// Microseconds since 2000-01-01 00:00 UTC, as PostgreSQL counts.
using Micros = std::int64_t;

inline constexpr Micros kMicrosPerSecond = 1'000'000;
inline constexpr Micros kMicrosPerMinute = 60 * kMicrosPerSecond;
inline constexpr Micros kMicrosPerHour = 60 * kMicrosPerMinute;
inline constexpr Micros kMicrosPerDay = 24 * kMicrosPerHour;

// Beyond this many, what expires later waits in the catch-all: every lookup probes the live ones.
inline constexpr int kMostLivePartitions = 100;

// The length of a partition: that many microseconds, or one calendar month.
struct PartitionInterval {
	Micros length;
	bool is_month;
};

inline constexpr Micros kShortestPartition = kMicrosPerHour;
inline constexpr Micros kLongestPartition = 31 * kMicrosPerDay;

// From one hour to one month.
bool is_valid(PartitionInterval interval) noexcept;

// Sessions whose expire is at least `from` and before `to`.
struct PartitionRange {
	Micros from;
	Micros to;
	bool operator==(const PartitionRange &) const = default;
};

// The range that holds `time`. Days begin at midnight, weeks on Monday, months on the first, all in
// UTC; other lengths are counted from Monday 2000-01-03.
PartitionRange range_of(Micros time, PartitionInterval interval) noexcept;

// What decides how far partitions reach.
struct PartitionRule {
	PartitionInterval interval;
	int ahead;          // partitions beyond default_ttl
	Micros default_ttl; // of the store
	Micros grace;       // how long an expired session is kept
};

// Where the last partition is to end: that of now + default_ttl and `ahead` more, but at most
// kMostLivePartitions from now.
Micros horizon(const PartitionRule &rule, Micros now) noexcept;

// The first range from now to `until` that none of the existing ones covers, or none. `existing` is
// sorted and without overlaps. A range is cut where a neighbour of another length reaches into it.
std::optional<PartitionRange> missing_range(const PartitionRule &rule,
	std::span<const PartitionRange> existing, Micros now, Micros until) noexcept;

// Whether every session of the range expired at least `grace` ago.
bool is_over(PartitionRange range, Micros grace, Micros now) noexcept;

// How many partitions would be live at once if there were no limit.
std::int64_t live_partitions(const PartitionRule &rule, Micros now) noexcept;

// In words, an interval with which a store of this TTL has a comfortable number of partitions.
const char *better_interval(const PartitionRule &rule, Micros now) noexcept;

// The part of a name that shows the range: "20261125_20261126", or with the time where a bound is
// not midnight: "20261125t0300_20261125t0400".
std::string range_name(PartitionRange range);

// A bound in a form that PostgreSQL reads whatever its settings: "2026-11-25 03:00:00+00".
std::string bound_literal(Micros bound);

} // namespace session_store::core
