// Arguments of the session functions: every kind of bad input is an ERROR that names the thing.
#pragma once

#include "store/registry.h"

namespace session_store {

// When a session is to end, as its caller asked.
struct Deadline {
	bool absolute; // an expire was given, to be taken exactly
	TimestampTz at;
};

// The store that argument `number` names.
Store *store_argument(FunctionCallInfo fcinfo, int number);
// A valid sid: 1 to 255 characters.
text *sid_argument(FunctionCallInfo fcinfo, int number);
void check_sid(const text *sid);
// ERROR null_value_not_allowed when that argument is NULL.
void require_not_null(FunctionCallInfo fcinfo, int number, const char *name);
// The payload, of the type that the store holds.
Datum payload_argument(FunctionCallInfo fcinfo, int number, const Store *store, Payload type);
// ttl and expire are alternatives; neither means the store's default_ttl.
Deadline deadline_arguments(
	FunctionCallInfo fcinfo, int ttl, int expire, const Store *store, TimestampTz now);
// ERROR unless the store holds payloads of this type.
void require_payload(const Store *store, Payload type);

} // namespace session_store
