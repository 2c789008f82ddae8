// Intervals as durations.
#include "postgres/interval.h"

extern "C" {
#include "common/int.h"
}

namespace session_store {

bool interval_to_microseconds(const Interval *interval, int64 *microseconds) {
#ifdef INTERVAL_NOT_FINITE
	if (INTERVAL_NOT_FINITE(interval))
		return false;
#endif
	int64 days = static_cast<int64>(interval->month) * DAYS_PER_MONTH + interval->day;
	int64 from_days;
	return !pg_mul_s64_overflow(days, USECS_PER_DAY, &from_days) &&
		!pg_add_s64_overflow(from_days, interval->time, microseconds);
}

bool is_calendar_month(const Interval *interval) {
	return interval->month == 1 && interval->day == 0 && interval->time == 0;
}

TimestampTz timestamp_after(TimestampTz from, int64 microseconds, const char *what) {
	TimestampTz result;
	if (pg_add_s64_overflow(from, microseconds, &result) ||
		pg_add_s64_overflow(result, kMicrosecondsPerMillisecond - 1, &result) ||
		!IS_VALID_TIMESTAMP(result))
		ereport(
			ERROR, (errcode(ERRCODE_DATETIME_FIELD_OVERFLOW), errmsg("%s is out of range", what)));
	// Division truncates towards zero, which rounds down after 2000-01-01, where sessions live.
	return result / kMicrosecondsPerMillisecond * kMicrosecondsPerMillisecond;
}

} // namespace session_store
