// Partitions by expiry.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

#include "core/partitions.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

namespace chr = std::chrono;

constexpr chr::sys_days kEpoch = chr::year{2000} / chr::January / 1;
constexpr Micros kFirstMonday = 2 * kMicrosPerDay; // 2000-01-03

// The day that holds `time`.
chr::sys_days day_of(Micros time) noexcept {
	Micros days = time / kMicrosPerDay;
	if (time % kMicrosPerDay < 0)
		days--;
	return kEpoch + chr::days{days};
}

Micros start_of(chr::sys_days day) noexcept {
	return (day - kEpoch).count() * kMicrosPerDay;
}

struct Clock {
	chr::year_month_day date;
	int hour;
	int minute;
	int second;
};

Clock clock_of(Micros time) noexcept {
	const chr::sys_days day = day_of(time);
	const auto seconds = static_cast<int>((time - start_of(day)) / kMicrosPerSecond);
	return {chr::year_month_day{day}, seconds / 3600, seconds / 60 % 60, seconds % 60};
}

PartitionRange month_of(Micros time) noexcept {
	const chr::year_month_day date{day_of(time)};
	const chr::year_month month = date.year() / date.month();
	return {start_of(month / 1), start_of((month + chr::months{1}) / 1)};
}

// A TTL so long that it makes no difference is cut, so that no sum overflows.
Micros bounded(Micros ttl) noexcept {
	constexpr Micros kLongest = 4000 * kMicrosPerDay;
	return std::min(ttl, kLongest);
}

struct Suggestion {
	PartitionInterval interval;
	const char *words;
};

constexpr std::array kSuggestions = {
	Suggestion{{kMicrosPerHour, false}, "1 hour"},
	Suggestion{{2 * kMicrosPerHour, false}, "2 hours"},
	Suggestion{{6 * kMicrosPerHour, false}, "6 hours"},
	Suggestion{{12 * kMicrosPerHour, false}, "12 hours"},
	Suggestion{{kMicrosPerDay, false}, "1 day"},
	Suggestion{{7 * kMicrosPerDay, false}, "7 days"},
	Suggestion{{0, true}, "1 month"},
};
constexpr std::int64_t kComfortable = 40;

std::string text_of(const char *format, const Clock &clock, bool with_time) {
	std::array<char, 64> buffer;
	const auto year = static_cast<int>(clock.date.year());
	const auto month = static_cast<unsigned>(clock.date.month());
	const auto day = static_cast<unsigned>(clock.date.day());
	const int length = with_time
		? std::snprintf(buffer.data(), buffer.size(), format, year, month, day, clock.hour,
			  clock.minute, clock.second)
		: std::snprintf(buffer.data(), buffer.size(), format, year, month, day);
	return {buffer.data(), static_cast<std::size_t>(length)};
}

} // namespace

bool is_valid(PartitionInterval interval) noexcept {
	return interval.is_month ||
		(interval.length >= kShortestPartition && interval.length <= kLongestPartition &&
			interval.length % kMicrosPerMinute == 0);
}

PartitionRange range_of(Micros time, PartitionInterval interval) noexcept {
	if (interval.is_month)
		return month_of(time);
	Micros into = (time - kFirstMonday) % interval.length;
	if (into < 0)
		into += interval.length;
	return {time - into, time - into + interval.length};
}

Micros horizon(const PartitionRule &rule, Micros now) noexcept {
	const Micros needed = range_of(now + bounded(rule.default_ttl), rule.interval).to;
	Micros end = range_of(now, rule.interval).to;
	int ahead = 0;
	for (int count = 1; count < kMostLivePartitions && (end < needed || ahead < rule.ahead);
		 count++) {
		if (end >= needed)
			ahead++;
		end = range_of(end, rule.interval).to;
	}
	return end;
}

std::optional<PartitionRange> missing_range(const PartitionRule &rule,
	std::span<const PartitionRange> existing, Micros now, Micros until) noexcept {
	Micros covered = range_of(now, rule.interval).from;
	for (const PartitionRange &range : existing) {
		if (range.to <= covered)
			continue;
		if (range.from > covered) {
			const Micros end = std::min(range_of(covered, rule.interval).to, range.from);
			return covered < until ? std::optional{PartitionRange{covered, end}} : std::nullopt;
		}
		covered = range.to;
	}
	if (covered >= until)
		return std::nullopt;
	return PartitionRange{covered, range_of(covered, rule.interval).to};
}

bool is_over(PartitionRange range, Micros grace, Micros now) noexcept {
	return range.to <= now && now - range.to >= grace;
}

std::int64_t live_partitions(const PartitionRule &rule, Micros now) noexcept {
	const Micros length = rule.interval.is_month ? 30 * kMicrosPerDay : rule.interval.length;
	const Micros from = range_of(now, rule.interval).from;
	return (now - from + bounded(rule.default_ttl)) / length + 1 + rule.ahead;
}

const char *better_interval(const PartitionRule &rule, Micros now) noexcept {
	for (const Suggestion &suggestion : kSuggestions) {
		PartitionRule other = rule;
		other.interval = suggestion.interval;
		if (live_partitions(other, now) <= kComfortable + rule.ahead)
			return suggestion.words;
	}
	return kSuggestions.back().words;
}

std::string range_name(PartitionRange range) {
	const bool whole_days = range.from % kMicrosPerDay == 0 && range.to % kMicrosPerDay == 0;
	const char *format = whole_days ? "%04d%02u%02u" : "%04d%02u%02ut%02d%02d";
	return text_of(format, clock_of(range.from), !whole_days) + "_" +
		text_of(format, clock_of(range.to), !whole_days);
}

std::string bound_literal(Micros bound) {
	return text_of("%04d-%02u-%02u %02d:%02d:%02d+00", clock_of(bound), true);
}

} // namespace session_store::core
