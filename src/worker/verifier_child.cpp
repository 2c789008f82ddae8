// The scheduled verification of a store, as its supervisor sees it.
#include "worker/shared_state.h"
#include "worker/supervised_store.h"

namespace session_store {

namespace {

constexpr const char *kVerifierType = "session_store verifier";

bool mirror_is_in_sync(int32 store_id) {
	MirrorReport report;
	pid_t pid;
	return get_mirror_report(MyDatabaseId, store_id, &report, &pid) && pid != 0 &&
		report.state == MirrorState::in_sync;
}

// The first one of a phase, or of a percentage, comes as soon as the mirror is in sync.
bool is_due(const SupervisedStore *store, TimestampTz now) {
	const StoreSettings *settings = &store->settings;
	return store->verified_at < settings->phase_changed_at ||
		now - store->verified_at >= settings->verify_interval;
}

void start_verifier(SupervisedStore *store, TimestampTz now) {
	const StoreSettings *settings = &store->settings;
	BackgroundWorker worker;
	fill_worker(&worker, kVerifierType, "session_store_verifier_main", BGW_NEVER_RESTART);
	snprintf(
		worker.bgw_name, sizeof(worker.bgw_name), "%s %s", kVerifierType, NameStr(settings->name));
	worker.bgw_main_arg = Int32GetDatum(settings->id);
	memcpy(worker.bgw_extra, &MyDatabaseId, sizeof(MyDatabaseId));
	const bool was_missing = store->verifier.slot_missing;
	if (!start_child(&store->verifier, &worker, now) && !was_missing)
		ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg("no free worker slot for the verification of store \"%s\"",
					NameStr(settings->name)),
				errhint("Raise max_worker_processes and restart PostgreSQL.")));
}

} // namespace

void manage_verifier(SupervisedStore *store, TimestampTz now) {
	const StoreSettings *settings = &store->settings;
	const pid_t pid = verifier_pid(MyDatabaseId, settings->id);
	const bool running = child_is_running(&store->verifier, pid, now);
	const bool wanted = store->present && is_dual(settings->phase) && store_is_bound_here(settings);
	if (!wanted) {
		if (running)
			stop_child(&store->verifier, pid);
		forgive_child(&store->verifier);
		return;
	}
	if (store->verified_at > store->verifier.started_at)
		forgive_child(&store->verifier);
	if (running || !is_due(store, now) || !mirror_is_in_sync(settings->id) ||
		child_start_delay(&store->verifier, now, static_cast<uint32>(settings->id)) > 0)
		return;
	start_verifier(store, now);
}

} // namespace session_store
