// A worker process that another worker keeps running: started, restarted with backoff, stopped.
//
// Children are dynamic workers that PostgreSQL itself never restarts, because only the parent knows
// whether they are still wanted. A parent that was restarted itself has no handle of the children
// of its predecessor: it finds their pids in shared memory and starts new ones only when they are
// gone.
#pragma once

#include "postgres/pg.h"

extern "C" {
#include "postmaster/bgworker.h"
}

namespace session_store {

struct Child {
	BackgroundWorkerHandle *handle; // null: not started by this process
	TimestampTz started_at;
	TimestampTz ended_at;
	unsigned failures; // in a row: starts that failed, and ends before it ran well for a while
	bool slot_missing; // the last start found no free worker slot
};

// Whether the child runs or is about to. `pid` is what shared memory says of it. Sees its end.
bool child_is_running(Child *child, pid_t pid, TimestampTz now);
// Milliseconds until it may be started; 0: now. `seed` spreads the restarts of many children.
int64 child_start_delay(const Child *child, TimestampTz now, uint32 seed);
// Starts it. False when there is no free worker slot; the next try backs off.
bool start_child(Child *child, BackgroundWorker *worker, TimestampTz now);
// Asks it to end.
void stop_child(Child *child, pid_t pid);
// Forgets the failures: what made it fail may have been changed.
void forgive_child(Child *child);

// The parts that all our workers have in common. A restart time of BGW_NEVER_RESTART is meant for
// children.
void fill_worker(
	BackgroundWorker *worker, const char *type, const char *function, int restart_time);

} // namespace session_store
