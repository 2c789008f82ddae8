// The state of a mirror in words.
#include "stats/status.h"

#include "worker/worker.h"

extern "C" {
#include "access/xlog.h"
#include "commands/dbcommands.h"
}

namespace session_store {

namespace {

constexpr const char *kStateNames[] = {
	"none", "starting", "connecting", "waiting", "copying", "in sync", "paused", "failing"};

} // namespace

const char *mirror_state_name(MirrorState state) {
	return kStateNames[static_cast<int>(state)];
}

bool find_mirror_obstacle(const StoreSettings *store, MirrorObstacle *obstacle) {
	const char *database = get_database_name(MyDatabaseId);
	*obstacle = {"not running", nullptr, nullptr};
	if (RecoveryInProgress()) {
		obstacle->reason = "this server is a standby";
		obstacle->remedy = "the mirror runs on its primary";
	} else if (!shared_state_available()) {
		obstacle->reason = "session_store is not in shared_preload_libraries";
		obstacle->remedy = "add it there and restart PostgreSQL";
	} else if (!store_is_bound_here(store)) {
		obstacle->state = "paused";
		obstacle->reason = "this store was bound to another cluster or database";
		obstacle->remedy = "call session_store.set_phase() here to start it";
	} else if (database != nullptr && !database_is_listed(database)) {
		obstacle->reason = psprintf("database \"%s\" is not in session_store.databases", database);
		obstacle->remedy = "add it there and reload the configuration";
	} else if (supervisor_pid(MyDatabaseId) == 0 && lacks_worker_slot(MyDatabaseId)) {
		obstacle->reason = "no free worker slot";
		obstacle->remedy = "raise max_worker_processes and restart PostgreSQL";
	}
	return obstacle->reason != nullptr;
}

const char *mirror_in_words(const StoreSettings *store, const MirrorReport *report) {
	if (!is_dual(store->phase))
		return "off";
	MirrorObstacle obstacle;
	if (find_mirror_obstacle(store, &obstacle))
		return psprintf("%s: %s; %s", obstacle.state, obstacle.reason, obstacle.remedy);
	if (report == nullptr)
		return "starting";
	return report->detail[0] != '\0' ? report->detail : mirror_state_name(report->state);
}

} // namespace session_store
