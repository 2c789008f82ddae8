// The launcher: a supervisor for each existing database named in session_store.databases.
//
// It is connected to no database, so that it neither dies of a missing one nor keeps one from being
// dropped, and it reads pg_database the way the autovacuum launcher does. What it knows of running
// supervisors is in shared memory; a launcher that died and came back takes them over.
#include <csignal>

#include "worker/child.h"
#include "worker/shared_state.h"
#include "worker/worker.h"

extern "C" {
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
}

namespace session_store {

namespace {

constexpr int kRestartSeconds = 1;
constexpr const char *kLauncherType = "session_store launcher";
constexpr const char *kSupervisorType = "session_store supervisor";

struct Supervised {
	Oid database; // InvalidOid: free
	NameData name;
	bool wanted;
	Child child;
};

Supervised supervised[kMaxSupervisors];
bool too_many_logged = false;

Supervised *find_entry(Oid database) {
	for (Supervised &entry : supervised) {
		if (entry.database == database)
			return &entry;
	}
	return nullptr;
}

void want(Form_pg_database database) {
	Supervised *entry = find_entry(database->oid);
	if (entry == nullptr)
		entry = find_entry(InvalidOid);
	if (entry == nullptr) {
		if (!too_many_logged)
			ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg(
						"session_store.databases names more than %d databases", kMaxSupervisors)));
		too_many_logged = true;
		return;
	}
	if (entry->database == InvalidOid)
		memset(entry, 0, sizeof(*entry));
	entry->database = database->oid;
	entry->name = database->datname;
	entry->wanted = true;
}

// Which databases are to have a supervisor now. A name that is listed and not there is no error:
// the database may be created later.
void read_databases() {
	for (Supervised &entry : supervised)
		entry.wanted = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void)GetTransactionSnapshot();
	Relation relation = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(relation, 0, nullptr);
	while (HeapTuple tuple = heap_getnext(scan, ForwardScanDirection)) {
		auto *database = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
		if (database->datallowconn && !database_is_invalid_form(database) &&
			database_is_listed(NameStr(database->datname)) && !database_is_blocked(database->oid))
			want(database);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
}

void start_supervisor(Supervised *entry, TimestampTz now) {
	BackgroundWorker worker;
	fill_worker(&worker, kSupervisorType, "session_store_supervisor_main", BGW_NEVER_RESTART);
	snprintf(
		worker.bgw_name, sizeof(worker.bgw_name), "%s %s", kSupervisorType, NameStr(entry->name));
	worker.bgw_main_arg = ObjectIdGetDatum(entry->database);
	bool was_missing = entry->child.slot_missing;
	bool started = start_child(&entry->child, &worker, now);
	note_missing_worker_slot(entry->database, !started);
	if (!started && !was_missing)
		ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				errmsg("no free worker slot for the session_store supervisor of database \"%s\"",
					NameStr(entry->name)),
				errhint("Raise max_worker_processes and restart PostgreSQL.")));
}

// Starts and stops what is due. Returns milliseconds until the next start.
int64 manage_supervisors() {
	int64 wait = worker_naptime_ms;
	TimestampTz now = GetCurrentTimestamp();
	for (Supervised &entry : supervised) {
		if (entry.database == InvalidOid)
			continue;
		pid_t pid = supervisor_pid(entry.database);
		bool running = child_is_running(&entry.child, pid, now);
		if (entry.wanted && !running) {
			int64 delay = child_start_delay(&entry.child, now, entry.database);
			if (delay == 0)
				start_supervisor(&entry, now);
			else
				wait = Min(wait, delay);
		} else if (!entry.wanted && running) {
			stop_child(&entry.child, pid);
		} else if (!entry.wanted) {
			note_missing_worker_slot(entry.database, false);
			entry.database = InvalidOid;
		}
	}
	return wait;
}

// Mirrors outlive a supervisor that was stopped alone, but not the place of their database in the
// list.
void stop_unwanted_workers() {
	Oid wanted[kMaxSupervisors];
	int count = 0;
	for (const Supervised &entry : supervised) {
		if (entry.database != InvalidOid && entry.wanted)
			wanted[count++] = entry.database;
	}
	stop_workers_outside(wanted, count);
}

} // namespace

void register_launcher() {
	BackgroundWorker worker;
	fill_worker(&worker, kLauncherType, "session_store_launcher_main", kRestartSeconds);
	RegisterBackgroundWorker(&worker);
}

} // namespace session_store

void session_store_launcher_main(Datum) {
	using namespace session_store;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (!claim_launcher())
		ereport(FATAL, (errmsg("another session_store launcher is running")));
	BackgroundWorkerInitializeConnection(nullptr, nullptr, 0);
	pgstat_report_activity(STATE_IDLE, nullptr);
	for (;;) {
		read_databases();
		stop_unwanted_workers();
		(void)worker_wait(manage_supervisors());
	}
}
