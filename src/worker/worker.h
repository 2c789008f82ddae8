// Worker processes: what launcher, supervisor and mirror have in common.
#pragma once

#include "postgres/pg.h"

namespace session_store {

extern char *worker_databases; // GUC session_store.databases
extern int worker_naptime_ms;  // GUC session_store.naptime
extern bool track_statistics;  // GUC session_store.track

// Defines the GUCs, registers the launcher, hooks utility commands. From _PG_init.
void init_worker_settings();
void register_launcher();
void install_utility_hook();

// Whether session_store.databases names this database. Names are compared as they are written;
// spaces around them and double quotes do not count.
bool database_is_listed(const char *name);

// First lines of a worker in a database: signal handlers, connection, and settings of its own
// (timeouts off, read committed, read-write, UTC, empty search_path) whatever database or role say.
// A worker claims its place (claim_supervisor, claim_mirror) before, so that whoever blocks the
// database finds its pid; a claim that fails means: return from the main function.
void begin_worker(Oid database);
// The bracket around each transaction of a worker, with statement timestamp, snapshot and
// statistics.
void start_worker_transaction(const char *activity);
void commit_worker_transaction();
// What a failed transaction leaves: plain data, without the detail, which may hold a whole sid.
struct WorkerFailure {
	int sqlstate;
	char message[256];
};
// For PG_CATCH of a worker: rolls the transaction back, after which the worker may go on.
void catch_worker_error(WorkerFailure *failure);
// Runs `step` in a transaction of its own. False when it failed and was rolled back: others' work
// goes on, and the caller logs what it wants of it.
bool try_worker_transaction(
	const char *activity, void (*step)(void *), void *argument, WorkerFailure *failure);
// Whether somebody else was just in the way: to be tried again, and not worth a word.
bool is_passing(const WorkerFailure *failure);

// Waits on the latch for at most that long, then serves interrupts and a reload.
// True when the latch was set.
bool worker_wait(int64 milliseconds);

// What a mirror or a verifier is started for: bgw_main_arg is the store's id, bgw_extra starts with
// its database.
struct MirrorArguments {
	Oid database;
	int32 store_id;
};
// In session_store_mirror_main: reads them from the argument and MyBgworkerEntry.
MirrorArguments mirror_arguments(Datum argument);

} // namespace session_store

// Entry points named in BackgroundWorker structures.
extern "C" {
PGDLLEXPORT void session_store_launcher_main(Datum argument);
PGDLLEXPORT void session_store_supervisor_main(Datum argument);
PGDLLEXPORT void session_store_mirror_main(Datum argument);
PGDLLEXPORT void session_store_verifier_main(Datum argument);
}
