// The mirror of a store, as its supervisor sees it.
#include "worker/shared_state.h"
#include "worker/supervised_store.h"

namespace session_store {

namespace {

constexpr int64 kLeaveTime = 15 * USECS_PER_SEC;
constexpr int64 kLookAgainMs = 100;
constexpr const char *kMirrorType = "session_store mirror";
constexpr const char *kElsewhere =
	"paused: this store was bound to another cluster or database; call session_store.set_phase() "
	"here to start it";
constexpr const char *kNoWorkerSlot =
	"failing: no free worker slot; raise max_worker_processes and restart PostgreSQL";

// A mirror that ended by itself has mostly said why; else somebody has to.
void report_end(const SupervisedStore *store) {
	MirrorReport report;
	pid_t pid;
	bool reported = get_mirror_report(MyDatabaseId, store->settings.id, &report, &pid);
	if (reported &&
		(report.state == MirrorState::failing || report.state == MirrorState::paused ||
			report.state == MirrorState::waiting))
		return;
	publish_mirror_state(MyDatabaseId, store->settings.id, MirrorState::failing,
		"failing: the mirror's process ended; it is started again");
}

void start_mirror(SupervisedStore *store, TimestampTz now) {
	const StoreSettings *settings = &store->settings;
	BackgroundWorker worker;
	fill_worker(&worker, kMirrorType, "session_store_mirror_main", BGW_NEVER_RESTART);
	snprintf(
		worker.bgw_name, sizeof(worker.bgw_name), "%s %s", kMirrorType, NameStr(settings->name));
	worker.bgw_main_arg = Int32GetDatum(settings->id);
	memcpy(worker.bgw_extra, &MyDatabaseId, sizeof(MyDatabaseId));
	bool was_missing = store->mirror.slot_missing;
	if (start_child(&store->mirror, &worker, now)) {
		MirrorReport report;
		pid_t pid;
		// While it fails again and again the reason is of more use than "starting".
		if (was_missing || !get_mirror_report(MyDatabaseId, settings->id, &report, &pid) ||
			report.state != MirrorState::failing)
			publish_mirror_state(MyDatabaseId, settings->id, MirrorState::starting, "starting");
		return;
	}
	publish_mirror_state(MyDatabaseId, settings->id, MirrorState::failing, kNoWorkerSlot);
	if (!was_missing)
		ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg(
					"no free worker slot for the mirror of store \"%s\"", NameStr(settings->name)),
				errhint("Raise max_worker_processes and restart PostgreSQL.")));
}

} // namespace

int64 manage_mirror(SupervisedStore *store, TimestampTz now) {
	const StoreSettings *settings = &store->settings;
	bool dual = is_dual(settings->phase);
	bool here = dual && store_is_bound_here(settings);
	pid_t pid = mirror_pid(MyDatabaseId, settings->id);
	bool had_handle = store->mirror.handle != nullptr;
	bool running = child_is_running(&store->mirror, pid, now);
	if (here)
		store->unwanted_since = 0;
	else if (store->unwanted_since == 0)
		store->unwanted_since = now;
	if (!here) {
		// After a dual phase it copies what is pending and leaves by itself.
		if (running && (dual || now - store->unwanted_since > kLeaveTime))
			stop_child(&store->mirror, pid);
		else if (running)
			return kLookAgainMs;
		else if (dual)
			publish_mirror_state(MyDatabaseId, settings->id, MirrorState::paused, kElsewhere);
		else
			forget_mirror(MyDatabaseId, settings->id);
		forgive_child(&store->mirror);
		return worker_naptime_ms;
	}
	if (running)
		return worker_naptime_ms;
	if (had_handle)
		report_end(store);
	int64 delay = child_start_delay(&store->mirror, now, static_cast<uint32>(settings->id));
	if (delay == 0)
		start_mirror(store, now);
	return delay == 0 ? worker_naptime_ms : delay;
}

bool retire_mirror(SupervisedStore *store, TimestampTz now) {
	pid_t pid = mirror_pid(MyDatabaseId, store->settings.id);
	if (child_is_running(&store->mirror, pid, now)) {
		stop_child(&store->mirror, pid);
		return false;
	}
	publish_background_error(MyDatabaseId, store->settings.id, nullptr);
	forget_mirror(MyDatabaseId, store->settings.id);
	return true;
}

} // namespace session_store
