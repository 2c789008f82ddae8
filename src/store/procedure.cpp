// What the procedures that commit on their way have in common.
#include "store/procedure.h"

extern "C" {
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
}

namespace session_store {

void require_commits(FunctionCallInfo fcinfo, const char *name) {
	bool atomic = fcinfo->context == nullptr || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;
	if (atomic)
		ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				errmsg("%s cannot run inside a transaction block", name),
				errhint("It commits after each step: call it by itself.")));
	PreventCommandDuringRecovery(name);
}

void next_transaction() {
	SPI_commit();
	(void)set_config_option("transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION,
		GUC_ACTION_LOCAL, true, 0, false);
}

void commit_without_waiting() {
	(void)set_config_option(
		"synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void wait_microseconds(int64 microseconds) {
	TimestampTz until = GetCurrentTimestamp() + microseconds;
	for (;;) {
		long wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
		if (wait <= 0)
			return;
		(void)WaitLatch(
			MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

Store *own_store(const char *name) {
	Store *store = find_store(name);
	require_store_owner(store);
	return store;
}

} // namespace session_store
