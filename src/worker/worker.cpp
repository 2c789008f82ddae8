// What launcher, supervisor and mirror have in common.
#include <csignal>

#include "worker/worker.h"

extern "C" {
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"
}

namespace session_store {

namespace {

struct Setting {
	const char *name;
	const char *value;
};

// What ALTER DATABASE or ALTER ROLE may have set otherwise. A lock that is not to be had is tried
// again later: nothing in the background makes anybody queue behind it for longer.
constexpr Setting kWorkerSettings[] = {
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"statement_timeout", "0"},
	{"lock_timeout", "100ms"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
	{"transaction_timeout", "0"},
#endif
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"standard_conforming_strings", "on"},
	{"transform_null_equals", "off"},
	{"jit", "off"},
	// Losing the last work of a worker in a crash costs doing it again (where it would cost more
	// the commit is forced), and a worker that waits for a standby could not be stopped.
	{"synchronous_commit", "off"},
};

} // namespace

void begin_worker(Oid database) {
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (const Setting &setting : kWorkerSettings)
		SetConfigOption(setting.name, setting.value, PGC_SUSET, PGC_S_OVERRIDE);
}

void start_worker_transaction(const char *activity) {
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	debug_query_string = activity;
	pgstat_report_activity(STATE_RUNNING, activity);
}

void commit_worker_transaction() {
	PopActiveSnapshot();
	CommitTransactionCommand();
	debug_query_string = nullptr;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, nullptr);
}

void catch_worker_error(WorkerFailure *failure) {
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(TopMemoryContext);
	ErrorData *error = CopyErrorData();
	failure->sqlstate = error->sqlerrcode;
	strlcpy(failure->message, error->message == nullptr ? "unknown error" : error->message,
		sizeof(failure->message));
	FreeErrorData(error);
	disable_all_timeouts(false);
	QueryCancelPending = false;
	AbortCurrentTransaction();
	FlushErrorState();
	debug_query_string = nullptr;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, nullptr);
	RESUME_INTERRUPTS();
}

bool try_worker_transaction(
	const char *activity, void (*step)(void *), void *argument, WorkerFailure *failure) {
	MemoryContext context = CurrentMemoryContext;
	volatile bool failed = false;
	PG_TRY();
	{
		start_worker_transaction(activity);
		step(argument);
		commit_worker_transaction();
	}
	PG_CATCH();
	{
		catch_worker_error(failure);
		failed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return !failed;
}

bool is_passing(const WorkerFailure *failure) {
	return failure->sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
		failure->sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		failure->sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

bool worker_wait(int64 milliseconds) {
	int events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
		static_cast<long>(Max(milliseconds, INT64CONST(0))), PG_WAIT_EXTENSION);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending) {
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return (events & WL_LATCH_SET) != 0;
}

MirrorArguments mirror_arguments(Datum argument) {
	MirrorArguments result = {InvalidOid, DatumGetInt32(argument)};
	memcpy(&result.database, MyBgworkerEntry->bgw_extra, sizeof(result.database));
	return result;
}

} // namespace session_store
