// session_store.repartition_changes.
//
// Rows are inserted without a statement, as in the outbox: no user has rights on the table, and
// nothing of a user's runs on it.
#include "store/repartition_notes.h"

#include "store/row_number.h"

namespace session_store {

namespace {

void insert_note(int32 store_id, Datum sid, bool sid_is_null) {
	const RowNumber number = next_row_number();
	Datum values[] = {
		Int32GetDatum(store_id), Int64GetDatum(number.xid), Int32GetDatum(number.seq), sid};
	bool nulls[] = {false, false, false, sid_is_null};
	Relation notes = table_open(extension_table("repartition_changes"), RowExclusiveLock);
	HeapTuple row = heap_form_tuple(RelationGetDescr(notes), values, nulls);
	CatalogTupleInsert(notes, row);
	heap_freetuple(row);
	table_close(notes, RowExclusiveLock);
}

} // namespace

void note_written(int32 store_id, Datum sid) {
	insert_note(store_id, sid, false);
}

} // namespace session_store

using namespace session_store;

// The trigger of a table that is being copied: notes the sid of each row that is written, or, with
// NULL, that all went.
SESSION_STORE_FUNCTION(session_store_note_written) {
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("session_store.note_written() can be called as a trigger only")));
	auto *trigger = reinterpret_cast<TriggerData *>(fcinfo->context);
	if (trigger->tg_trigger->tgnargs != 1)
		elog(ERROR, "note_written: no store");
	const int32 store_id = pg_strtoint32(trigger->tg_trigger->tgargs[0]);
	Datum sid = 0;
	bool is_null = true;
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event)) {
		TupleDesc descriptor = RelationGetDescr(trigger->tg_relation);
		sid = heap_getattr(
			trigger->tg_trigtuple, SPI_fnumber(descriptor, "sid"), descriptor, &is_null);
	}
	insert_note(store_id, sid, is_null);
	return PointerGetDatum(nullptr);
}
