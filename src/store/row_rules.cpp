// What every write of a session row must keep right.
#include "store/row_rules.h"

#include "store/arguments.h"
#include "store/cleanup.h"

extern "C" {
#include "utils/datum.h"
}

namespace session_store {

namespace {

// Microseconds from 1970, where versions begin, to 2000, where timestamps do.
constexpr int64 kVersionEpoch =
	static_cast<int64>(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

// The user's id at user_id_path of the payload; false when the path is not set.
bool user_id_of_payload(Datum sess, const Store *store, Datum *user_id, bool *is_null) {
	if (store->user_id_path == nullptr)
		return false;
	LOCAL_FCINFO(call, 2);
	FmgrInfo function;
	fmgr_info(F_JSONB_EXTRACT_PATH_TEXT, &function);
	InitFunctionCallInfoData(*call, &function, 2, InvalidOid, nullptr, nullptr);
	call->args[0] = {sess, false};
	call->args[1] = {PointerGetDatum(store->user_id_path), false};
	*user_id = FunctionCallInvoke(call);
	*is_null = call->isnull;
	return true;
}

// The hour of an expiry.
TimestampTz bucket_of(TimestampTz expire) {
	if (TIMESTAMP_NOT_FINITE(expire))
		return expire;
	TimestampTz into_hour = expire % USECS_PER_HOUR;
	return expire - (into_hour < 0 ? into_hour + USECS_PER_HOUR : into_hour);
}

void change_bucket(const StoreColumns *columns, TimestampTz expire, RowChanges *changes) {
	change(changes, columns->expire_bucket, TimestampTzGetDatum(bucket_of(expire)), false);
}

bool same_user(Datum a, bool a_is_null, Datum b, bool b_is_null) {
	return a_is_null == b_is_null && (a_is_null || same_value(a, b));
}

// When the payload changed and the statement gave no user_id, user_id_path says who it is. A
// payload without a user takes away only the user that the payload before it had given.
void change_user_id(const Store *store, const StoreColumns *columns, const SessionRow *before,
	const SessionRow *after, RowChanges *changes) {
	Datum user_id;
	bool is_null;
	if (!same_user(before->user_id, !before->has_user_id, after->user_id, !after->has_user_id) ||
		!user_id_of_payload(after->sess, store, &user_id, &is_null))
		return;
	if (is_null) {
		Datum old_user_id;
		bool old_is_null;
		(void)user_id_of_payload(before->sess, store, &old_user_id, &old_is_null);
		if (!same_user(before->user_id, !before->has_user_id, old_user_id, old_is_null))
			return;
	}
	change(changes, columns->user_id, user_id, is_null);
}

} // namespace

SessionRow session_row_of(const StoreColumns *columns, const Datum *values, const bool *nulls) {
	SessionRow row;
	row.sid = values[columns->sid - 1];
	row.has_sid = !nulls[columns->sid - 1];
	row.sess = values[columns->sess - 1];
	row.has_sess = !nulls[columns->sess - 1];
	row.user_id = values[columns->user_id - 1];
	row.has_user_id = !nulls[columns->user_id - 1];
	row.expire = DatumGetTimestampTz(values[columns->expire - 1]);
	row.has_expire = !nulls[columns->expire - 1];
	row.version = nulls[columns->version - 1] ? 0 : DatumGetInt64(values[columns->version - 1]);
	return row;
}

SessionRow read_session_row(const StoreColumns *columns, HeapTuple row, TupleDesc descriptor) {
	auto *values = static_cast<Datum *>(palloc(descriptor->natts * sizeof(Datum)));
	auto *nulls = static_cast<bool *>(palloc(descriptor->natts * sizeof(bool)));
	heap_deform_tuple(row, descriptor, values, nulls);
	return session_row_of(columns, values, nulls);
}

void change(RowChanges *changes, AttrNumber column, Datum value, bool is_null) {
	Assert(changes->count < kMaxChanges);
	changes->columns[changes->count] = column;
	changes->values[changes->count] = value;
	changes->nulls[changes->count++] = is_null;
}

HeapTuple changed_row(HeapTuple row, TupleDesc descriptor, RowChanges *changes) {
	return heap_modify_tuple_by_cols(
		row, descriptor, changes->count, changes->columns, changes->values, changes->nulls);
}

void rules_of_insert(
	const Store *store, const StoreColumns *columns, const SessionRow *row, RowChanges *changes) {
	check_sid(DatumGetTextPP(row->sid));
	change_bucket(columns, row->expire, changes);
	Datum user_id;
	bool is_null;
	if (!row->has_user_id && user_id_of_payload(row->sess, store, &user_id, &is_null))
		change(changes, columns->user_id, user_id, is_null);
}

int64 first_version(TimestampTz now) {
	return now + kVersionEpoch;
}

int64 rules_of_update(const Store *store, const StoreColumns *columns, WriteOrigin origin,
	const SessionRow *before, const SessionRow *after, bool user_id_is_settled, TimestampTz now,
	RowChanges *changes) {
	const bool payload_changed = !same_value(before->sess, after->sess);
	changes->payload = payload_changed;
	bool revived = before->expire <= now && after->expire > now;
	// What the mirror brings may have been renewed before it expired.
	if (revived && origin == WriteOrigin::mirror)
		revived = before->expire <= removable_until(&store->settings, now);
	int64 version = before->version;
	if (payload_changed || revived)
		version++;
	if (revived) {
		version = Max(version, first_version(now));
		change(changes, columns->created_at, TimestampTzGetDatum(now), false);
	}
	change(changes, columns->version, Int64GetDatum(version), false);
	change(changes, columns->updated_at, TimestampTzGetDatum(now), false);
	change_bucket(columns, after->expire, changes);
	if (payload_changed && !user_id_is_settled)
		change_user_id(store, columns, before, after, changes);
	return version;
}

bool same_value(Datum a, Datum b) {
	if (a == b)
		return true;
	auto *left = reinterpret_cast<varlena *>(DatumGetPointer(a));
	auto *right = reinterpret_cast<varlena *>(DatumGetPointer(b));
	// A value that a statement left alone is stored the same way: no need to decompress it.
	if (VARSIZE_ANY(left) == VARSIZE_ANY(right) && memcmp(left, right, VARSIZE_ANY(left)) == 0)
		return true;
	return datum_image_eq(a, b, false, -1);
}

} // namespace session_store
