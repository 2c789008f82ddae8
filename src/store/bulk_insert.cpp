// Inserting many sessions at once.
//
// What COPY does: rows are put on pages together and logged together, and then their index entries
// are made. The rules of the row trigger are applied here.
#include "store/bulk_insert.h"

#include "postgres/compat.h"
#include "postgres/yield.h"
#include "store/direct_writes.h"
#include "store/row_rules.h"

namespace session_store {

namespace {

constexpr int kColumns = 8; // of a table as create_store makes it

bool has_our_columns_only(Relation table) {
	TupleDesc descriptor = RelationGetDescr(table);
	if (descriptor->natts != kColumns)
		return false;
	for (int i = 0; i < kColumns; i++)
		if (TupleDescAttr(descriptor, i)->attisdropped)
			return false;
	return true;
}

void store_row(Store *store, const NewSession *session, TimestampTz now, TupleTableSlot *slot) {
	const StoreColumns *columns = &store->columns;
	ExecClearTuple(slot);
	Datum *values = slot->tts_values;
	memset(slot->tts_isnull, false, kColumns * sizeof(bool));
	values[columns->sid - 1] = session->sid;
	values[columns->sess - 1] = session->sess;
	values[columns->expire - 1] = TimestampTzGetDatum(session->expire);
	values[columns->created_at - 1] = TimestampTzGetDatum(now);
	values[columns->updated_at - 1] = TimestampTzGetDatum(now);
	values[columns->version - 1] = Int64GetDatum(first_version(now));
	slot->tts_isnull[columns->user_id - 1] = true;
	const SessionRow row = session_row_of(columns, values, slot->tts_isnull);
	RowChanges changes = {};
	rules_of_insert(store, columns, &row, &changes);
	for (int i = 0; i < changes.count; i++) {
		values[changes.columns[i] - 1] = changes.values[i];
		slot->tts_isnull[changes.columns[i] - 1] = changes.nulls[i];
	}
	ExecStoreVirtualTuple(slot);
}

void insert_index_entries(Relation table, TupleTableSlot **slots, int count) {
	EState *state = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, table, 0, nullptr, 0);
	ExecOpenIndices(result, false);
	for (int i = 0; i < count; i++) {
		yield_if_due();
		insert_index_tuples(result, slots[i], state, kAllIndexes);
		ResetPerTupleExprContext(state);
	}
	ExecCloseIndices(result);
	FreeExecutorState(state);
}

} // namespace

bool insert_many(
	Store *store, Relation table, const NewSession *sessions, int count, TimestampTz now) {
	if (!has_our_columns_only(table) ||
		direct_writes_to(table, DirectWrite::insert) != DirectWrites::allowed)
		return false;
	auto **slots = static_cast<TupleTableSlot **>(palloc(count * sizeof(TupleTableSlot *)));
	for (int i = 0; i < count; i++) {
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsVirtual);
		store_row(store, &sessions[i], now, slots[i]);
	}
	yield_if_due();
	table_multi_insert(table, slots, count, GetCurrentCommandId(true), 0, nullptr);
	insert_index_entries(table, slots, count);
	for (int i = 0; i < count; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	CommandCounterIncrement();
	return true;
}

} // namespace session_store
