// Intervals as durations: a day is 24 hours and a month 30 days, whatever the time zone.
#pragma once

#include "postgres/pg.h"

namespace session_store {

inline constexpr int64 kMicrosecondsPerMillisecond = 1000;

// False when the interval is infinite or does not fit.
bool interval_to_microseconds(const Interval *interval, int64 *microseconds);

// Exactly one month, as against thirty days.
bool is_calendar_month(const Interval *interval);

// `from` plus a duration of at least 0, as a timestamp that a column of milliseconds holds exactly,
// rounded up; ERROR datetime_field_overflow when that is out of range. `what` names the argument.
TimestampTz timestamp_after(TimestampTz from, int64 microseconds, const char *what);

} // namespace session_store
