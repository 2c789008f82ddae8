// Steps that change the layout of a table which is in use.
#include "store/ddl_step.h"

namespace session_store {

namespace {

bool is_in_the_way(int sqlstate) {
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

} // namespace

StepResult try_ddl_step(StepResult (*step)(void *), void *argument) {
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile StepResult result = StepResult::in_the_way;
	ErrorData *volatile error = nullptr;
	BeginInternalSubTransaction(nullptr);
	PG_TRY();
	{
		result = step(argument);
		if (result == StepResult::done)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		result = StepResult::in_the_way;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != nullptr && !is_in_the_way(error->sqlerrcode))
		ReThrowError(error);
	return result;
}

bool lock_for_ddl(Oid relation, LOCKMODE mode, int wait_ms) {
	if (wait_ms == 0)
		return ConditionalLockRelationOid(relation, mode);
	const int level = limit_lock_waits(wait_ms);
	LockRelationOid(relation, mode);
	AtEOXact_GUC(false, level);
	return true;
}

int limit_lock_waits(int wait_ms) {
	const int level = NewGUCNestLevel();
	(void)set_config_option("lock_timeout", psprintf("%dms", wait_ms), PGC_USERSET, PGC_S_SESSION,
		GUC_ACTION_SAVE, true, 0, false);
	return level;
}

bool could_lock(Oid relation, LOCKMODE mode) {
	if (!ConditionalLockRelationOid(relation, mode))
		return false;
	UnlockRelationOid(relation, mode);
	return true;
}

} // namespace session_store
