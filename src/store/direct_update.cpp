// Updating a session in place.
#include "store/direct_update.h"

#include "postgres/compat.h"
#include "store/direct_writes.h"
#include "store/layout.h"
#include "store/outbox.h"
#include "store/repartition_notes.h"

extern "C" {
#include "access/tupconvert.h"
}

namespace session_store {

namespace {

bool allows_direct_update(DirectWrites *known, Relation table, bool partitioned) {
	if (*known == DirectWrites::unknown)
		*known = direct_writes_to(table, partitioned ? DirectWrite::any : DirectWrite::update);
	return *known != DirectWrites::refused;
}

// Whether the store's table itself lets its partitions be written.
bool allows_partition_writes(Store *store, Relation table) {
	if (store->direct_update == DirectWrites::unknown)
		store->direct_update = table->rd_rel->relhasrules
			? DirectWrites::refused
			: direct_writes_past_triggers(table, DirectWrite::any);
	return store->direct_update != DirectWrites::refused;
}

void require_update_right(Store *store, Relation table) {
	if (store->may_update != GetUserId()) {
		AclResult allowed = pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_UPDATE);
		if (allowed != ACLCHECK_OK)
			aclcheck_error(allowed, OBJECT_TABLE, RelationGetRelationName(table));
		store->may_update = GetUserId();
	}
	PreventCommandIfReadOnly("UPDATE");
	PreventCommandIfParallelMode("UPDATE");
	CheckCmdReplicaIdentity(table, CMD_UPDATE);
}

void insert_index_entries(Relation table, TupleTableSlot *slot, IndexUpdates updates) {
	EState *state = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, table, 0, nullptr, 0);
	ExecOpenIndices(result, false);
	insert_index_tuples(result, slot, state, updates);
	ExecCloseIndices(result);
	FreeExecutorState(state);
}

// A new version of a row, and what it replaces.
struct NewVersion {
	HeapTuple row;
	SessionRow before;
	SessionRow after;
	bool payload_changed;
	int64 version;
	bool is_noted; // for a repartition
};

NewVersion make_version(Store *store, TableProbe *at, const DirectUpdate *update, TimestampTz now) {
	TupleDesc descriptor = RelationGetDescr(at->table);
	TupleTableSlot *before = at->slot;
	const StoreColumns *columns = &at->columns;
	slot_getallattrs(before);
	SessionRow old_row = session_row_of(columns, before->tts_values, before->tts_isnull);
	SessionRow new_row = old_row;
	RowChanges changes = {};
	new_row.expire = update->expire;
	change(&changes, columns->expire, TimestampTzGetDatum(update->expire), false);
	if (!update->keeps_user_id) {
		new_row.user_id = update->user_id;
		new_row.has_user_id = !update->user_id_is_null;
		change(&changes, columns->user_id, update->user_id, update->user_id_is_null);
	}
	// An equal payload stays as it is stored.
	if (!update->keeps_sess && !same_value(old_row.sess, update->sess)) {
		new_row.sess = update->sess;
		change(&changes, columns->sess, update->sess, false);
	}
	const int64 version = rules_of_update(store, columns, WriteOrigin::application, &old_row,
		&new_row, !update->keeps_user_id, now, &changes);
	auto *values = static_cast<Datum *>(palloc(descriptor->natts * sizeof(Datum)));
	auto *nulls = static_cast<bool *>(palloc(descriptor->natts * sizeof(bool)));
	memcpy(values, before->tts_values, descriptor->natts * sizeof(Datum));
	memcpy(nulls, before->tts_isnull, descriptor->natts * sizeof(bool));
	for (int i = 0; i < changes.count; i++) {
		values[changes.columns[i] - 1] = changes.values[i];
		nulls[changes.columns[i] - 1] = changes.nulls[i];
	}
	return {heap_form_tuple(descriptor, values, nulls), old_row, new_row, changes.payload, version,
		false};
}

// The row as another partition stores it: the same columns, which may stand elsewhere.
HeapTuple convert_row(HeapTuple row, Relation from, Relation to) {
	TupleConversionMap *map = convert_tuples_by_name(RelationGetDescr(from), RelationGetDescr(to));
	return map == nullptr ? row : execute_attr_map_tuple(row, map);
}

bool update_in_place(Probe *probe, HeapTuple row) {
	TableProbe *at = table_of(probe);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(at->table), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row, slot, true);
	TM_FailureData failure;
	LockTupleMode lock_mode;
	IndexUpdates updates;
	TM_Result result =
		table_tuple_update(at->table, &at->slot->tts_tid, slot, GetCurrentCommandId(true),
			probe->snapshot, InvalidSnapshot, true, &failure, &lock_mode, &updates);
	bool done = result == TM_Ok;
	if (done && needs_index_entries(updates))
		insert_index_entries(at->table, slot, updates);
	ExecDropSingleTupleTableSlot(slot);
	return done;
}

bool move_row(Probe *probe, HeapTuple row, Relation target) {
	TableProbe *at = table_of(probe);
	TM_FailureData failure;
	if (table_tuple_delete(at->table, &at->slot->tts_tid, GetCurrentCommandId(true),
			probe->snapshot, InvalidSnapshot, true, &failure, true) != TM_Ok)
		return false;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(target), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(convert_row(row, at->table, target), slot, false);
	table_tuple_insert(target, slot, GetCurrentCommandId(true), 0, nullptr);
	insert_index_entries(target, slot, kAllIndexes);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

// Writes the row in its partition, or moves it. False when that partition is not ours to write, or
// the row was changed.
bool update_partition(
	Store *store, Probe *probe, const DirectUpdate *update, TimestampTz now, NewVersion *made) {
	TableProbe *at = table_of(probe);
	StorePartition *from = find_partition(store, RelationGetRelid(at->table));
	StorePartition *to = partition_for(store, update->expire);
	if (from == nullptr || to == nullptr ||
		!allows_direct_update(&from->direct_update, at->table, true))
		return false;
	Relation target = from == to ? at->table : table_open(to->relation, RowExclusiveLock);
	LockRelationOid(RelationGetRelid(at->table), RowExclusiveLock);
	bool done = false;
	if (store->valid && store->table_known &&
		(from == to || allows_direct_update(&to->direct_update, target, true))) {
		*made = make_version(store, at, update, now);
		made->is_noted =
			from->direct_update == DirectWrites::noted || to->direct_update == DirectWrites::noted;
		done = from == to ? update_in_place(probe, made->row) : move_row(probe, made->row, target);
	}
	if (from != to)
		table_close(target, NoLock);
	return done;
}

} // namespace

bool update_directly(Store *store, Relation table, Probe *probe, const DirectUpdate *update,
	TimestampTz now, int64 *version) {
	if (!store->valid || !store->table_known)
		return false;
	if (store->is_partitioned ? !allows_partition_writes(store, table)
							  : !allows_direct_update(&store->direct_update, table, false))
		return false;
	require_update_right(store, table);
	LockRelationOid(RelationGetRelid(table), RowExclusiveLock);
	if (!store->valid || !store->table_known)
		return false;
	NewVersion made;
	bool done = false;
	if (store->is_partitioned) {
		done = update_partition(store, probe, update, now, &made);
	} else {
		made = make_version(store, table_of(probe), update, now);
		made.is_noted = store->direct_update == DirectWrites::noted;
		done = update_in_place(probe, made.row);
	}
	if (!done)
		return false;
	note_change(
		store, WriteOrigin::application, &made.before, &made.after, made.payload_changed, now);
	if (made.is_noted)
		note_written(store->settings.id, made.after.sid);
	CommandCounterIncrement();
	*version = made.version;
	return true;
}

} // namespace session_store
