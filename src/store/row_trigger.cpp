// The row trigger: keeps every session row right, whichever statement writes it.
//
// BEFORE each row: the rules of row_rules.h, and the logout guard. A DELETE of a live row is a
// logout and leaves a tombstone; the row is locked by then, so that logouts of one sid are
// serialized. An INSERT of a sid that was ended within logout_guard is dropped. AFTER each inserted
// row: the guard is looked at again. An INSERT ... ON CONFLICT may have looked at it, then waited
// for the very transaction that logged the session out, and inserted. What is to be copied to Redis
// goes to the outbox where it is certain that a row is written: BEFORE an update or a delete, which
// have locked the row, and AFTER an insert, which may come upon a row that is there.
//
// In a partitioned table the sid of a new row is locked before the guard is looked at, and no other
// row may have it: the insert is certain then, and needs no second look. PostgreSQL moves a row to
// another partition by an UPDATE, whose triggers run first, then a DELETE and an INSERT: these two
// are no logout and no new session (see is_move_out and is_move_in).
#include "postgres/pg.h"
#include "store/layout.h"
#include "store/one_row.h"
#include "store/outbox.h"
#include "store/row_rules.h"
#include "store/tombstones.h"

extern "C" {
#include "mb/pg_wchar.h"
}

namespace session_store {

namespace {

struct RowWrite {
	Store *store;
	const StoreColumns *columns; // of the table or partition
	TriggerData *trigger;
	FmgrInfo *call; // of this trigger on this table, as long as the statement
	TupleDesc descriptor;
	WriteOrigin origin;
	TimestampTz now;
};

// The row of a partition that the statement updated last. In call->fn_extra: a deletion that finds
// its own row there is the first half of a move.
struct LastUpdate {
	ItemPointerData row;
};

// A row that was moved out of its partition and not into another yet.
constexpr int kMaxSidBytes = 255 * MAX_MULTIBYTE_CHAR_LEN;
struct MovedOut {
	TransactionId transaction;
	Oid table;
	int sid_bytes;
	char sid[kMaxSidBytes];
};
MovedOut moved_out;

void note_update(const RowWrite *write) {
	if (!write->store->is_partitioned)
		return;
	auto *last = static_cast<LastUpdate *>(write->call->fn_extra);
	if (last == nullptr)
		write->call->fn_extra = last =
			static_cast<LastUpdate *>(MemoryContextAlloc(write->call->fn_mcxt, sizeof(LastUpdate)));
	last->row = write->trigger->tg_trigtuple->t_self;
}

// Whether this deletion is the first half of a move to another partition.
bool is_move_out(const RowWrite *write) {
	auto *last = static_cast<LastUpdate *>(write->call->fn_extra);
	return last != nullptr && ItemPointerEquals(&last->row, &write->trigger->tg_trigtuple->t_self);
}

void note_move_out(const RowWrite *write, Datum sid) {
	text *bytes = DatumGetTextPP(sid);
	moved_out.transaction = GetTopTransactionId();
	moved_out.table = write->store->settings.relation;
	moved_out.sid_bytes = Min(static_cast<int>(VARSIZE_ANY_EXHDR(bytes)), kMaxSidBytes);
	memcpy(moved_out.sid, VARDATA_ANY(bytes), moved_out.sid_bytes);
}

// Whether this insertion is the second half of a move.
bool is_move_in(const RowWrite *write, Datum sid) {
	if (moved_out.table != write->store->settings.relation ||
		moved_out.transaction != GetTopTransactionIdIfAny())
		return false;
	text *bytes = DatumGetTextPP(sid);
	moved_out.table = InvalidOid;
	return static_cast<int>(VARSIZE_ANY_EXHDR(bytes)) == moved_out.sid_bytes &&
		memcmp(VARDATA_ANY(bytes), moved_out.sid, moved_out.sid_bytes) == 0;
}

// The mirror does not wait: what it cannot insert now it tries again.
bool lock_new_sid(const RowWrite *write, Datum sid) {
	if (write->origin == WriteOrigin::mirror)
		return try_lock_sid(write->store, sid);
	lock_sid(write->store, sid);
	return true;
}

// Refuses a second row. False when the mirror is to leave the row out.
bool is_only_row(const RowWrite *write, Datum sid) {
	bool waits = write->origin != WriteOrigin::mirror;
	if (sid_is_free(write->store->settings.relation) || !has_row(write->store, sid, waits))
		return true;
	if (waits)
		ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
				errmsg("table \"%s\" has a session of that sid already",
					get_rel_name(write->store->settings.relation)),
				errhint("To replace it, call session_store.upsert(), or update the row."),
				errtable(write->trigger->tg_relation)));
	return false;
}

bool is_guarded(const RowWrite *write, Datum sid) {
	const StoreSettings *settings = &write->store->settings;
	return write->origin == WriteOrigin::application && settings->logout_guard > 0 &&
		was_ended(settings, sid, write->now);
}

HeapTuple before_insert(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	SessionRow row = read_session_row(write->columns, tuple, write->descriptor);
	if (!row.has_sid || !row.has_sess || !row.has_expire)
		return tuple; // the constraint says what is wrong
	bool partitioned = write->store->is_partitioned;
	if (partitioned && is_move_in(write, row.sid))
		return is_only_row(write, row.sid) ? tuple : nullptr;
	RowChanges changes = {};
	rules_of_insert(write->store, write->columns, &row, &changes);
	if (partitioned && !lock_new_sid(write, row.sid))
		return nullptr;
	if (is_guarded(write, row.sid) || (partitioned && !is_only_row(write, row.sid)))
		return nullptr;
	if (partitioned)
		note_change(write->store, write->origin, nullptr, &row, true, write->now);
	return changed_row(tuple, write->descriptor, &changes);
}

HeapTuple before_update(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_newtuple;
	SessionRow before =
		read_session_row(write->columns, write->trigger->tg_trigtuple, write->descriptor);
	SessionRow after = read_session_row(write->columns, tuple, write->descriptor);
	if (!after.has_sid || !after.has_sess || !after.has_expire)
		return tuple; // the constraint says what is wrong
	if (!same_value(before.sid, after.sid))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the sid of a session cannot be changed"),
				errhint("Delete the session and insert one with the new sid.")));
	RowChanges changes = {};
	(void)rules_of_update(write->store, write->columns, write->origin, &before, &after,
		user_id_is_settled(write->store->settings.relation), write->now, &changes);
	note_update(write);
	note_change(write->store, write->origin, &before, &after, changes.payload, write->now);
	return changed_row(tuple, write->descriptor, &changes);
}

HeapTuple before_delete(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	const StoreSettings *settings = &write->store->settings;
	SessionRow row = read_session_row(write->columns, tuple, write->descriptor);
	if (is_move_out(write)) {
		note_move_out(write, row.sid);
		return tuple;
	}
	if (row.expire <= write->now)
		return tuple;
	if (write->origin == WriteOrigin::application && settings->logout_guard > 0)
		write_tombstone(settings, row.sid, write->now);
	note_end(write->store, write->origin, row.sid, write->now);
	return tuple;
}

void after_insert(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	SessionRow row = read_session_row(write->columns, tuple, write->descriptor);
	if (!is_guarded(write, row.sid)) {
		note_change(write->store, write->origin, nullptr, &row, true, write->now);
		return;
	}
	ItemPointerData position = tuple->t_self;
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
	const StorePartition *partition = find_partition(store, RelationGetRelid(trigger->tg_relation));
	RowWrite write = {store, partition == nullptr ? &store->columns : &partition->columns, trigger,
		fcinfo->flinfo, RelationGetDescr(trigger->tg_relation),
		write_origin(store->settings.relation), GetCurrentTimestamp()};
	return PointerGetDatum(fire(&write));
}
