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

// What keeps any mirror of this database from running, or null.
const char *obstacle(const StoreSettings *store) {
	const char *database = get_database_name(MyDatabaseId);
	if (RecoveryInProgress())
		return "not running: this server is a standby; the mirror runs on its primary";
	if (!shared_state_available())
		return "not running: session_store is not in shared_preload_libraries; add it there and "
			   "restart PostgreSQL";
	if (!store_is_bound_here(store))
		return "paused: this store was bound to another cluster or database; call "
			   "session_store.set_phase() here to start it";
	if (database != nullptr && !database_is_listed(database))
		return psprintf("not running: database \"%s\" is not in session_store.databases; add it "
						"there and reload the configuration",
			database);
	if (supervisor_pid(MyDatabaseId) == 0 && lacks_worker_slot(MyDatabaseId))
		return "not running: no free worker slot; raise max_worker_processes and restart "
			   "PostgreSQL";
	return nullptr;
}

} // namespace

const char *mirror_state_name(MirrorState state) {
	return kStateNames[static_cast<int>(state)];
}

const char *mirror_in_words(const StoreSettings *store, const MirrorReport *report) {
	if (!is_dual(store->phase))
		return "off";
	const char *reason = obstacle(store);
	if (reason != nullptr)
		return reason;
	if (report == nullptr)
		return "starting";
	return report->detail[0] != '\0' ? report->detail : mirror_state_name(report->state);
}

} // namespace session_store
