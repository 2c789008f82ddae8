// Keeping a worker process running.
#include <csignal>

#include "worker/child.h"

#include "core/schedule.h"

namespace session_store {

namespace {

// A child that ran for so long had not failed to start.
constexpr int kRanWellMs = 10000;

core::Millis millis(TimestampTz time) {
	return core::Millis{time / 1000};
}

} // namespace

bool child_is_running(Child *child, pid_t pid, TimestampTz now) {
	if (child->handle != nullptr) {
		pid_t ignored;
		if (GetBackgroundWorkerPid(child->handle, &ignored) != BGWH_STOPPED)
			return true;
		pfree(child->handle);
		child->handle = nullptr;
		child->ended_at = now;
		bool ran_well = TimestampDifferenceExceeds(child->started_at, now, kRanWellMs);
		child->failures = ran_well ? 1 : child->failures + 1;
	}
	return pid != 0;
}

int64 child_start_delay(const Child *child, TimestampTz now, uint32 seed) {
	if (child->failures == 0)
		return 0;
	return core::until_due(
		millis(now), millis(child->ended_at), core::backoff(child->failures, seed))
		.count();
}

bool start_child(Child *child, BackgroundWorker *worker, TimestampTz now) {
	worker->bgw_notify_pid = MyProcPid;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool started = RegisterDynamicBackgroundWorker(worker, &child->handle);
	MemoryContextSwitchTo(old);
	if (started) {
		child->started_at = now;
	} else {
		child->handle = nullptr;
		child->ended_at = now;
		child->failures++;
	}
	child->slot_missing = !started;
	return started;
}

void stop_child(Child *child, pid_t pid) {
	if (child->handle != nullptr)
		TerminateBackgroundWorker(child->handle);
	else if (pid != 0)
		kill(pid, SIGTERM);
}

void forgive_child(Child *child) {
	child->failures = 0;
}

void fill_worker(
	BackgroundWorker *worker, const char *type, const char *function, int restart_time) {
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	// Sessions are moved and cleaned where they can be written: not on a standby.
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = restart_time;
	strlcpy(worker->bgw_library_name, "session_store", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_type, type, sizeof(worker->bgw_type));
	strlcpy(worker->bgw_name, type, sizeof(worker->bgw_name));
}

} // namespace session_store
