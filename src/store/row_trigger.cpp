// The row trigger: keeps every session row right, whichever statement writes it.
//
// BEFORE each row: version, updated_at, user_id, expire_bucket, and the logout guard. A DELETE of a
// live row is a logout and leaves a tombstone; the row is locked by then, so that logouts of one
// sid are serialized. An INSERT of a sid that was ended within logout_guard is dropped. AFTER each
// inserted row: the guard is looked at again. An INSERT ... ON CONFLICT may have looked at it, then
// waited for the very transaction that logged the session out, and inserted.
#include "postgres/pg.h"
#include "store/arguments.h"
#include "store/registry.h"
#include "store/tombstones.h"
#include "store/write_origin.h"

extern "C" {
#include "utils/datum.h"
}

namespace session_store {

namespace {

constexpr int kMaxChangedColumns = 5;

struct RowWrite {
	Store *store;
	TriggerData *trigger;
	WriteOrigin origin;
	TimestampTz now;
};

Datum get_column(HeapTuple tuple, AttrNumber column, const RowWrite *write, bool *is_null) {
	return heap_getattr(tuple, column, RelationGetDescr(write->trigger->tg_relation), is_null);
}

Datum get_value(HeapTuple tuple, AttrNumber column, const RowWrite *write) {
	bool is_null;
	return get_column(tuple, column, write, &is_null);
}

bool is_live(HeapTuple tuple, const RowWrite *write) {
	return DatumGetTimestampTz(get_value(tuple, write->store->columns.expire, write)) > write->now;
}

// Until changes in PostgreSQL reach Redis, a write that would be lost is refused.
void refuse_in_dual_phase(const RowWrite *write) {
	const StoreSettings *settings = &write->store->settings;
	if (write->origin != WriteOrigin::mirror && is_dual(settings->phase))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("store \"%s\" is written by its mirror only in phase %s",
					NameStr(settings->name), phase_name(settings->phase)),
				errhint("Write the session in Redis, or leave the phase with "
						"session_store.set_phase().")));
}

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

// The columns that a row is to get besides what its statement says.
struct Changes {
	int count;
	int columns[kMaxChangedColumns];
	Datum values[kMaxChangedColumns];
	bool nulls[kMaxChangedColumns];
};

void change(Changes *changes, AttrNumber column, Datum value, bool is_null) {
	changes->columns[changes->count] = column;
	changes->values[changes->count] = value;
	changes->nulls[changes->count++] = is_null;
}

HeapTuple changed_row(HeapTuple row, Changes *changes, const RowWrite *write) {
	return heap_modify_tuple_by_cols(row, RelationGetDescr(write->trigger->tg_relation),
		changes->count, changes->columns, changes->values, changes->nulls);
}

// The hour of an expiry.
TimestampTz bucket_of(TimestampTz expire) {
	if (TIMESTAMP_NOT_FINITE(expire))
		return expire;
	TimestampTz into_hour = expire % USECS_PER_HOUR;
	return expire - (into_hour < 0 ? into_hour + USECS_PER_HOUR : into_hour);
}

void change_bucket(Changes *changes, Datum expire, const RowWrite *write) {
	change(changes, write->store->columns.expire_bucket,
		TimestampTzGetDatum(bucket_of(DatumGetTimestampTz(expire))), false);
}

HeapTuple before_insert(const RowWrite *write) {
	HeapTuple row = write->trigger->tg_trigtuple;
	const Store *store = write->store;
	refuse_in_dual_phase(write);
	bool sid_is_null;
	bool sess_is_null;
	bool expire_is_null;
	bool user_id_is_null;
	Datum sid = get_column(row, store->columns.sid, write, &sid_is_null);
	Datum sess = get_column(row, store->columns.sess, write, &sess_is_null);
	Datum expire = get_column(row, store->columns.expire, write, &expire_is_null);
	(void)get_column(row, store->columns.user_id, write, &user_id_is_null);
	if (sid_is_null || sess_is_null || expire_is_null)
		return row; // the constraint says what is wrong
	check_sid(DatumGetTextPP(sid));
	if (write->origin == WriteOrigin::application && store->settings.logout_guard > 0 &&
		was_ended(&store->settings, sid, write->now))
		return nullptr;
	Changes changes = {};
	change_bucket(&changes, expire, write);
	Datum user_id;
	bool is_null;
	if (user_id_is_null && user_id_of_payload(sess, store, &user_id, &is_null))
		change(&changes, store->columns.user_id, user_id, is_null);
	return changed_row(row, &changes, write);
}

// When the payload changed and the statement gave no user_id, user_id_path says who it is.
void change_user_id(Changes *changes, Datum sess, const RowWrite *write) {
	const Store *store = write->store;
	AttrNumber column = store->columns.user_id;
	if (store->user_id_path == nullptr ||
		user_id_is_settled(RelationGetRelid(write->trigger->tg_relation)))
		return;
	bool old_is_null;
	bool new_is_null;
	Datum before = get_column(write->trigger->tg_trigtuple, column, write, &old_is_null);
	Datum after = get_column(write->trigger->tg_newtuple, column, write, &new_is_null);
	bool given =
		old_is_null != new_is_null || (!new_is_null && !datum_image_eq(before, after, false, -1));
	Datum user_id;
	bool is_null;
	if (!given && user_id_of_payload(sess, store, &user_id, &is_null))
		change(changes, column, user_id, is_null);
}

HeapTuple before_update(const RowWrite *write) {
	HeapTuple before = write->trigger->tg_trigtuple;
	HeapTuple after = write->trigger->tg_newtuple;
	const StoreColumns *columns = &write->store->columns;
	refuse_in_dual_phase(write);
	if (!datum_image_eq(get_value(before, columns->sid, write),
			get_value(after, columns->sid, write), false, -1))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the sid of a session cannot be changed"),
				errhint("Delete the session and insert one with the new sid.")));

	bool sess_is_null;
	bool expire_is_null;
	Datum old_sess = get_value(before, columns->sess, write);
	Datum new_sess = get_column(after, columns->sess, write, &sess_is_null);
	Datum expire = get_column(after, columns->expire, write, &expire_is_null);
	if (sess_is_null || expire_is_null)
		return after; // the constraint says what is wrong
	bool payload_changed = !datum_image_eq(old_sess, new_sess, false, -1);
	bool revived = !is_live(before, write) && is_live(after, write);
	int64 version = DatumGetInt64(get_value(before, columns->version, write));
	if (payload_changed || revived)
		version++;
	if (revived)
		version =
			Max(version, write->now + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);

	Changes changes = {};
	change(&changes, columns->version, Int64GetDatum(version), false);
	change(&changes, columns->updated_at, TimestampTzGetDatum(write->now), false);
	change_bucket(&changes, expire, write);
	if (revived)
		change(&changes, columns->created_at, TimestampTzGetDatum(write->now), false);
	if (payload_changed)
		change_user_id(&changes, new_sess, write);
	return changed_row(after, &changes, write);
}

HeapTuple before_delete(const RowWrite *write) {
	HeapTuple row = write->trigger->tg_trigtuple;
	const StoreSettings *settings = &write->store->settings;
	if (!is_live(row, write))
		return row;
	refuse_in_dual_phase(write);
	if (write->origin == WriteOrigin::application && settings->logout_guard > 0)
		write_tombstone(settings, get_value(row, write->store->columns.sid, write), write->now);
	return row;
}

void after_insert(const RowWrite *write) {
	HeapTuple row = write->trigger->tg_trigtuple;
	const StoreSettings *settings = &write->store->settings;
	if (write->origin != WriteOrigin::application || settings->logout_guard == 0 ||
		!was_ended(settings, get_value(row, write->store->columns.sid, write), write->now))
		return;
	ItemPointerData position = row->t_self;
	CommandCounterIncrement();
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	simple_table_tuple_delete(write->trigger->tg_relation, &position, snapshot);
	UnregisterSnapshot(snapshot);
	guarded_inserts++;
}

HeapTuple fire(const RowWrite *write) {
	TriggerEvent event = write->trigger->tg_event;
	if (TRIGGER_FIRED_AFTER(event)) {
		if (TRIGGER_FIRED_BY_INSERT(event))
			after_insert(write);
		return nullptr;
	}
	if (TRIGGER_FIRED_BY_INSERT(event))
		return before_insert(write);
	return TRIGGER_FIRED_BY_UPDATE(event) ? before_update(write) : before_delete(write);
}

} // namespace

} // namespace session_store

SESSION_STORE_FUNCTION(session_store_row_trigger) {
	using namespace session_store;
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("session_store.row_trigger() can be called as a trigger only")));
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("session_store.row_trigger() must be a row trigger")));
	Store *store = find_store_of(trigger->tg_relation);
	if (store == nullptr)
		ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table \"%s\" does not belong to a store",
					RelationGetRelationName(trigger->tg_relation)),
				errhint("Drop its trigger \"%s\".", trigger->tg_trigger->tgname)));
	RowWrite write = {store, trigger, write_origin(RelationGetRelid(trigger->tg_relation)),
		GetCurrentTimestamp()};
	return PointerGetDatum(fire(&write));
}
