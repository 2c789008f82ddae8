// Locking the row of a session by its index.
#include "store/row_lock.h"

namespace session_store {

namespace {

enum class Attempt : uint8_t { locked, absent, moved };

Attempt try_lock(Store *store, Relation table, text *sid, bool only_look) {
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Probe probe = begin_probe(store, table, snapshot, Wanted::any);
	Attempt attempt = Attempt::absent;
	if (find(&probe, sid, DT_NOBEGIN, false).present)
		attempt = only_look || lock_found(table_of(&probe), snapshot, LockWaitBlock)
			? Attempt::locked
			: Attempt::moved;
	end_probe(&probe);
	UnregisterSnapshot(snapshot);
	return attempt;
}

} // namespace

bool may_lock(Store *store, Relation table) {
	return may_probe(store, table) &&
		pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_UPDATE | ACL_DELETE) ==
		ACLCHECK_OK;
}

bool lock_found(TableProbe *at, Snapshot snapshot, LockWaitPolicy policy) {
	TM_FailureData failure;
	const TM_Result result = table_tuple_lock(at->table, &at->slot->tts_tid, snapshot, at->slot,
		GetCurrentCommandId(false), LockTupleExclusive, policy, 0, &failure);
	// TM_SelfModified: by the statement that calls us.
	return result == TM_Ok || result == TM_SelfModified;
}

bool lock_row(Store *store, Relation table, text *sid) {
	bool only_look = !may_lock(store, table) || XactReadOnly;
	if (!only_look)
		LockRelationOid(RelationGetRelid(table), RowExclusiveLock);
	for (;;) {
		Attempt attempt = try_lock(store, table, sid, only_look);
		if (attempt != Attempt::moved)
			return attempt == Attempt::locked;
		CHECK_FOR_INTERRUPTS();
	}
}

void prepare_write(Store *store, Relation table, text *sid) {
	if (store->is_partitioned && !IsolationUsesXactSnapshot())
		(void)lock_row(store, table, sid);
}

void report_concurrent_update() {
	ereport(ERROR,
		(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			errmsg("could not serialize access due to concurrent update")));
}

} // namespace session_store
