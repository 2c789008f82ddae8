// Worker processes: what launcher, supervisor and mirror have in common.
#pragma once

#include "postgres/pg.h"

namespace session_store {

extern char *worker_databases;	 // GUC session_store.databases
extern int worker_naptime_ms;	 // GUC session_store.naptime

// Defines the GUCs, registers the launcher, hooks utility commands. From _PG_init.
void init_worker_settings();
void register_launcher();
void install_utility_hook();

// First lines of a worker in a database: signal handlers, connection, and settings of its own
// (timeouts off, read committed, read-write, UTC, empty search_path) whatever database or role say.
void begin_worker(Oid database);
// The bracket around each transaction of a worker, with statement timestamp, snapshot and statistics.
void start_worker_transaction(const char *activity);
void commit_worker_transaction();

}  // namespace session_store

// Entry points named in BackgroundWorker structures.
extern "C" {
PGDLLEXPORT void session_store_launcher_main(Datum argument);
PGDLLEXPORT void session_store_supervisor_main(Datum argument);
PGDLLEXPORT void session_store_mirror_main(Datum argument);
}
