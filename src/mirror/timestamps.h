// Between Redis' milliseconds since 1970 and PostgreSQL's microseconds since 2000.
#pragma once

#include "mirror/feed_link.h"
#include "postgres/pg.h"

extern "C" {
#include "datatype/timestamp.h"
}

namespace session_store {

inline constexpr int64 kEpochMilliseconds =
	(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000);

// False when PostgreSQL cannot hold the time. kFeedNoExpiry is infinity.
inline bool from_redis_milliseconds(int64 milliseconds, TimestampTz *timestamp) {
	if (milliseconds == kFeedNoExpiry) {
		*timestamp = DT_NOEND;
		return true;
	}
	if (milliseconds < 0 || milliseconds >= END_TIMESTAMP / 1000 + kEpochMilliseconds)
		return false;
	*timestamp = (milliseconds - kEpochMilliseconds) * 1000;
	return true;
}

// Whether Redis can hold exactly this.
inline bool is_whole_milliseconds(TimestampTz timestamp) {
	return TIMESTAMP_IS_NOEND(timestamp) || timestamp % 1000 == 0;
}

// Expiries are whole milliseconds. One before 1970 is long past in any case.
inline int64 to_redis_milliseconds(TimestampTz timestamp) {
	if (TIMESTAMP_IS_NOEND(timestamp))
		return kFeedNoExpiry;
	if (TIMESTAMP_IS_NOBEGIN(timestamp))
		return 1;
	return Max(timestamp / 1000 + kEpochMilliseconds, INT64CONST(1));
}

} // namespace session_store
