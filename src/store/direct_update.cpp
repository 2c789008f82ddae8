// Updating a session in place.
#include "store/direct_update.h"

#include "postgres/compat.h"

extern "C" {
#include "catalog/pg_am.h"
#include "catalog/pg_trigger.h"
#include "parser/parse_func.h"
}

namespace session_store {

namespace {

bool is_our_trigger(const Trigger *trigger, Oid function) {
	return trigger->tgfoid == function && TRIGGER_FOR_BEFORE(trigger->tgtype) &&
		TRIGGER_FOR_ROW(trigger->tgtype) && trigger->tgqual == nullptr && trigger->tgnattr == 0 &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
			trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

// Our row trigger runs on updates, and no other.
bool has_our_trigger_only(Relation table) {
	List *name = lappend(NIL, makeString(pstrdup("session_store")));
	name = lappend(name, makeString(pstrdup("row_trigger")));
	Oid function = LookupFuncName(name, 0, nullptr, true);
	bool found = false;
	for (int i = 0; table->trigdesc != nullptr && i < table->trigdesc->numtriggers; i++) {
		const Trigger *trigger = &table->trigdesc->triggers[i];
		if (!TRIGGER_FOR_UPDATE(trigger->tgtype))
			continue;
		if (!is_our_trigger(trigger, function))
			return false;
		found = true;
	}
	return found;
}

bool has_deferrable_index(Relation table) {
	bool found = false;
	List *indexes = RelationGetIndexList(table);
	ListCell *cell;
	foreach (cell, indexes) {
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		found = found || !index->rd_index->indimmediate || index->rd_index->indisexclusion;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return found;
}

bool allows_direct_update(Store *store, Relation table) {
	if (store->direct_update == DirectUpdates::unknown) {
		const TupleConstr *constraints = RelationGetDescr(table)->constr;
		bool allowed = table->rd_rel->relkind == RELKIND_RELATION &&
			table->rd_rel->relam == HEAP_TABLE_AM_OID && !table->rd_rel->relhasrules &&
			(constraints == nullptr ||
				(constraints->num_check == 0 && !constraints->has_generated_stored)) &&
			has_our_trigger_only(table) && !has_deferrable_index(table);
		store->direct_update = allowed ? DirectUpdates::allowed : DirectUpdates::refused;
	}
	return store->direct_update == DirectUpdates::allowed;
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

HeapTuple make_row(Store *store, Relation table, TupleTableSlot *before, const DirectUpdate *update,
	TimestampTz now, int64 *version) {
	TupleDesc descriptor = RelationGetDescr(table);
	slot_getallattrs(before);
	SessionRow old_row = session_row_of(store, before->tts_values, before->tts_isnull);
	SessionRow new_row = old_row;
	RowChanges changes = {};
	new_row.expire = update->expire;
	change(&changes, store->columns.expire, TimestampTzGetDatum(update->expire), false);
	if (!update->keeps_user_id) {
		new_row.user_id = update->user_id;
		new_row.has_user_id = !update->user_id_is_null;
		change(&changes, store->columns.user_id, update->user_id, update->user_id_is_null);
	}
	// An equal payload stays as it is stored.
	if (!update->keeps_sess && !same_value(old_row.sess, update->sess)) {
		new_row.sess = update->sess;
		change(&changes, store->columns.sess, update->sess, false);
	}
	*version = rules_of_update(store, &old_row, &new_row, !update->keeps_user_id, now, &changes);
	auto *values = static_cast<Datum *>(palloc(descriptor->natts * sizeof(Datum)));
	auto *nulls = static_cast<bool *>(palloc(descriptor->natts * sizeof(bool)));
	memcpy(values, before->tts_values, descriptor->natts * sizeof(Datum));
	memcpy(nulls, before->tts_isnull, descriptor->natts * sizeof(bool));
	for (int i = 0; i < changes.count; i++) {
		values[changes.columns[i] - 1] = changes.values[i];
		nulls[changes.columns[i] - 1] = changes.nulls[i];
	}
	return heap_form_tuple(descriptor, values, nulls);
}

} // namespace

bool update_directly(Store *store, Relation table, Probe *probe, const DirectUpdate *update,
	TimestampTz now, int64 *version) {
	if (!store->valid || !allows_direct_update(store, table))
		return false;
	require_update_right(store, table);
	refuse_in_dual_phase(store, WriteOrigin::application);
	LockRelationOid(RelationGetRelid(table), RowExclusiveLock);
	if (!store->valid)
		return false;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(make_row(store, table, probe->slot, update, now, version), slot, true);
	TM_FailureData failure;
	LockTupleMode lock_mode;
	IndexUpdates updates;
	TM_Result result =
		table_tuple_update(table, &probe->slot->tts_tid, slot, GetCurrentCommandId(true),
			probe->snapshot, InvalidSnapshot, true, &failure, &lock_mode, &updates);
	bool done = result == TM_Ok;
	if (done && needs_index_entries(updates))
		insert_index_entries(table, slot, updates);
	ExecDropSingleTupleTableSlot(slot);
	if (done)
		CommandCounterIncrement();
	return done;
}

} // namespace session_store
