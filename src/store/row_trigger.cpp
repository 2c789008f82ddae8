// The row trigger: keeps every session row right, whichever statement writes it.
//
// BEFORE each row: the rules of row_rules.h, and the logout guard. A DELETE of a live row is a
// logout and leaves a tombstone; the row is locked by then, so that logouts of one sid are
// serialized. An INSERT of a sid that was ended within logout_guard is dropped. AFTER each inserted
// row: the guard is looked at again. An INSERT ... ON CONFLICT may have looked at it, then waited
// for the very transaction that logged the session out, and inserted.
#include "postgres/pg.h"
#include "store/row_rules.h"
#include "store/tombstones.h"

namespace session_store {

namespace {

struct RowWrite {
	Store *store;
	TriggerData *trigger;
	TupleDesc descriptor;
	WriteOrigin origin;
	TimestampTz now;
};

bool is_guarded(const RowWrite *write, Datum sid) {
	const StoreSettings *settings = &write->store->settings;
	return write->origin == WriteOrigin::application && settings->logout_guard > 0 &&
		was_ended(settings, sid, write->now);
}

HeapTuple before_insert(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	refuse_in_dual_phase(write->store, write->origin);
	SessionRow row = read_session_row(write->store, tuple, write->descriptor);
	if (!row.has_sid || !row.has_sess || !row.has_expire)
		return tuple; // the constraint says what is wrong
	RowChanges changes = {};
	rules_of_insert(write->store, &row, &changes);
	if (is_guarded(write, row.sid))
		return nullptr;
	return changed_row(tuple, write->descriptor, &changes);
}

HeapTuple before_update(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_newtuple;
	refuse_in_dual_phase(write->store, write->origin);
	SessionRow before =
		read_session_row(write->store, write->trigger->tg_trigtuple, write->descriptor);
	SessionRow after = read_session_row(write->store, tuple, write->descriptor);
	if (!after.has_sid || !after.has_sess || !after.has_expire)
		return tuple; // the constraint says what is wrong
	if (!same_value(before.sid, after.sid))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("the sid of a session cannot be changed"),
				errhint("Delete the session and insert one with the new sid.")));
	RowChanges changes = {};
	(void)rules_of_update(write->store, &before, &after,
		user_id_is_settled(RelationGetRelid(write->trigger->tg_relation)), write->now, &changes);
	return changed_row(tuple, write->descriptor, &changes);
}

HeapTuple before_delete(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	const StoreSettings *settings = &write->store->settings;
	SessionRow row = read_session_row(write->store, tuple, write->descriptor);
	if (row.expire <= write->now)
		return tuple;
	refuse_in_dual_phase(write->store, write->origin);
	if (write->origin == WriteOrigin::application && settings->logout_guard > 0)
		write_tombstone(settings, row.sid, write->now);
	return tuple;
}

void after_insert(const RowWrite *write) {
	HeapTuple tuple = write->trigger->tg_trigtuple;
	SessionRow row = read_session_row(write->store, tuple, write->descriptor);
	if (!is_guarded(write, row.sid))
		return;
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
	RowWrite write = {store, trigger, RelationGetDescr(trigger->tg_relation),
		write_origin(RelationGetRelid(trigger->tg_relation)), GetCurrentTimestamp()};
	return PointerGetDatum(fire(&write));
}
