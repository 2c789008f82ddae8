// Inserting a session without a statement.
//
// As INSERT ... ON CONFLICT does it: the row is inserted speculatively, and killed again when a
// unique index has the sid already. The logout guard is looked at before, and once more when the
// row is there for others to see: a logout that was not seen before has then left its tombstone, or
// will find the row.
#include "store/direct_insert.h"

#include "postgres/compat.h"
#include "store/direct_writes.h"
#include "store/outbox.h"
#include "store/repartition_notes.h"
#include "store/row_rules.h"
#include "store/tombstones.h"

extern "C" {
#include "access/xact.h"
}

namespace session_store {

namespace {

// sid, sess, user_id, expire, created_at, updated_at, version, expire_bucket
constexpr int kOurColumns = 8;

// A column of the user's may have a default, and any column may refuse nulls.
bool has_our_columns_only(Relation table, bool user_id_is_null, const StoreColumns *columns) {
	TupleDesc descriptor = RelationGetDescr(table);
	return descriptor->natts == kOurColumns &&
		!(user_id_is_null && TupleDescAttr(descriptor, columns->user_id - 1)->attnotnull);
}

bool may_insert(Store *store, Relation table) {
	if (store->may_insert == GetUserId())
		return true;
	if (pg_class_aclmask(RelationGetRelid(table), GetUserId(), ACL_INSERT | ACL_UPDATE,
			ACLMASK_ALL) != (ACL_INSERT | ACL_UPDATE))
		return false;
	store->may_insert = GetUserId();
	return true;
}

bool allows_direct_insert(Store *store, Relation table, const DirectInsert *insert) {
	if (!store->valid || !store->table_known || store->is_partitioned || XactReadOnly ||
		IsInParallelMode())
		return false;
	if (store->direct_insert == DirectWrites::unknown)
		store->direct_insert = direct_writes_to(table, DirectWrite::insert);
	return store->direct_insert != DirectWrites::refused &&
		has_our_columns_only(table, insert->user_id_is_null, &store->columns) &&
		may_insert(store, table);
}

bool is_guarded(const Store *store, Datum sid) {
	return store->settings.logout_guard > 0 &&
		was_ended(&store->settings, sid, GetCurrentTimestamp());
}

HeapTuple make_row(const Store *store, Relation table, const DirectInsert *insert, TimestampTz now,
	SessionRow *row) {
	const StoreColumns *columns = &store->columns;
	Datum values[kOurColumns];
	bool nulls[kOurColumns] = {};
	auto set = [&](AttrNumber column, Datum value) { values[column - 1] = value; };
	set(columns->sid, insert->sid);
	set(columns->sess, insert->sess);
	set(columns->user_id, insert->user_id);
	nulls[columns->user_id - 1] = insert->user_id_is_null;
	set(columns->expire, TimestampTzGetDatum(insert->expire));
	set(columns->created_at, TimestampTzGetDatum(now));
	set(columns->updated_at, TimestampTzGetDatum(now));
	set(columns->version, Int64GetDatum(first_version(now)));
	set(columns->expire_bucket, 0);
	*row = session_row_of(columns, values, nulls);
	RowChanges changes = {};
	rules_of_insert(store, columns, row, &changes);
	for (int i = 0; i < changes.count; i++) {
		values[changes.columns[i] - 1] = changes.values[i];
		nulls[changes.columns[i] - 1] = changes.nulls[i];
	}
	*row = session_row_of(columns, values, nulls);
	return heap_form_tuple(RelationGetDescr(table), values, nulls);
}

// False, and the row is not there, when an index has the sid already.
bool insert_row(const Store *store, Relation table, TupleTableSlot *slot) {
	EState *state = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, table, 0, nullptr, 0);
	ExecOpenIndices(result, true);
	TransactionId transaction = GetCurrentTransactionId();
	uint32 token = SpeculativeInsertionLockAcquire(transaction);
	table_tuple_insert_speculative(table, slot, GetCurrentCommandId(true), 0, nullptr, token);
	bool conflict = false;
	insert_index_tuples_unless(result, slot, state, &conflict, lappend_oid(NIL, store->sid_index));
	table_tuple_complete_speculative(table, slot, token, !conflict);
	SpeculativeInsertionLockRelease(transaction);
	ExecCloseIndices(result);
	FreeExecutorState(state);
	return !conflict;
}

void remove_row(Relation table, ItemPointer position) {
	CommandCounterIncrement();
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	simple_table_tuple_delete(table, position, snapshot);
	UnregisterSnapshot(snapshot);
}

} // namespace

Inserted insert_directly(Store *store, Relation table, const DirectInsert *insert, int64 *version) {
	if (!allows_direct_insert(store, table, insert))
		return Inserted::undecided;
	if (is_guarded(store, insert->sid))
		return Inserted::guarded;
	const bool noted = store->direct_insert == DirectWrites::noted;
	// The clock as it is now: the version is later than those of a row that was here before.
	TimestampTz now = GetCurrentTimestamp();
	SessionRow row;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(make_row(store, table, insert, now, &row), slot, true);
	Inserted outcome = Inserted::undecided;
	if (insert_row(store, table, slot)) {
		outcome = is_guarded(store, insert->sid) ? Inserted::guarded : Inserted::done;
		if (outcome == Inserted::guarded)
			remove_row(table, &slot->tts_tid);
		else
			note_change(store, WriteOrigin::application, nullptr, &row, true, now);
		if (noted)
			note_written(store->settings.id, row.sid);
		CommandCounterIncrement();
	}
	*version = row.version;
	ExecDropSingleTupleTableSlot(slot);
	return outcome;
}

} // namespace session_store
