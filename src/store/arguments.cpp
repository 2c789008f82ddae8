// Arguments of the session functions.
#include "store/arguments.h"

#include "postgres/interval.h"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace session_store {

namespace {

constexpr int kMaxSidCharacters = 255;
constexpr int kExpirePrecision = 3; // of the column: milliseconds

TimestampTz as_stored(TimestampTz expire) {
	return DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_scale, TimestampTzGetDatum(expire), Int32GetDatum(kExpirePrecision)));
}

} // namespace

void require_not_null(FunctionCallInfo fcinfo, int number, const char *name) {
	if (PG_ARGISNULL(number))
		ereport(
			ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
}

Store *store_argument(FunctionCallInfo fcinfo, int number) {
	require_not_null(fcinfo, number, "store");
	return find_store(NameStr(*PG_GETARG_NAME(number)));
}

text *sid_argument(FunctionCallInfo fcinfo, int number) {
	require_not_null(fcinfo, number, "sid");
	text *sid = PG_GETARG_TEXT_PP(number);
	check_sid(sid);
	return sid;
}

void check_sid(const text *sid) {
	int bytes = VARSIZE_ANY_EXHDR(sid);
	if (bytes == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("sid must not be empty")));
	// A character is at least a byte: most sids need no counting.
	if (bytes > kMaxSidCharacters) {
		int characters = pg_mbstrlen_with_len(VARDATA_ANY(sid), bytes);
		if (characters > kMaxSidCharacters)
			ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION), errmsg("sid is too long"),
					errdetail("It has %d characters; at most %d are allowed.", characters,
						kMaxSidCharacters)));
	}
}

void require_payload(const Store *store, Payload type) {
	if (store->settings.payload == type)
		return;
	bool is_bytea = store->settings.payload == Payload::bytea;
	ereport(ERROR,
		(errcode(ERRCODE_DATATYPE_MISMATCH),
			errmsg("store \"%s\" holds %s payloads", NameStr(store->name),
				is_bytea ? "bytea" : "jsonb"),
			is_bytea ? errhint("Use the functions whose names hold \"bytes\".")
					 : errhint("Use the functions for jsonb.")));
}

Datum payload_argument(FunctionCallInfo fcinfo, int number, const Store *store, Payload type) {
	require_payload(store, type);
	require_not_null(fcinfo, number, "sess");
	return PG_GETARG_DATUM(number);
}

Deadline deadline_arguments(
	FunctionCallInfo fcinfo, int ttl, int expire, const Store *store, TimestampTz now) {
	bool has_ttl = !PG_ARGISNULL(ttl);
	bool has_expire = !PG_ARGISNULL(expire);
	if (has_ttl && has_expire)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("ttl and expire are alternatives"),
				errhint("Give one of them.")));
	if (has_expire)
		return {true, as_stored(PG_GETARG_TIMESTAMPTZ(expire))};
	int64 duration = store->settings.default_ttl;
	if (has_ttl) {
		if (!interval_to_microseconds(PG_GETARG_INTERVAL_P(ttl), &duration))
			ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW), errmsg("ttl is out of range"),
					errhint("For a session that never ends, give expire => 'infinity'.")));
		if (duration <= 0)
			ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("ttl must be positive"),
					errhint("To end a session, call session_store.expire().")));
	}
	return {false, timestamp_after(now, duration, "ttl")};
}

} // namespace session_store
