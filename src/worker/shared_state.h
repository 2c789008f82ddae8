// What the workers of all databases share: who runs where, and what each mirror last reported.
// One LWLock guards everything here; nobody holds it while doing anything else.
#pragma once

#include <cstdint>

#include "postgres/pg.h"

namespace session_store {

inline constexpr int kMaxSupervisors = 64;
inline constexpr int kMaxMirrors = 128;
inline constexpr int kReportTextBytes = 256;
inline constexpr int kModeTextBytes = 160;

enum class MirrorState : uint8_t {
	none,       // no report: no mirror has run since the server started
	starting,   // launched, not yet connected
	connecting, // trying to reach Redis
	waiting,    // Redis answers but is not ready (loading, replica not in sync)
	copying,    // the full comparison is under way
	in_sync,    // following the live feed
	paused,     // bound to another cluster or database, or waits for an answer
	failing,    // an error keeps it from working; it tries again by itself
};

// What a mirror publishes about itself, every turn of its loop. Plain data.
struct MirrorReport {
	MirrorState state;
	char detail[kReportTextBytes];     // the state in words, with the remedy where there is one
	char last_error[kReportTextBytes]; // never a password, never a whole sid
	TimestampTz last_error_at;
	int64 lag_keys;         // keys known to have changed and not yet applied
	int64 lag_milliseconds; // age of the oldest of them
	int64 redis_sessions;   // keys under the prefix, -1 when unknown
	int64 rejects_over_limit;
	int64 applied;   // sessions written or removed since the mirror started
	int64 unchanged; // read and found equal
	int64 hints;     // invalidation messages
	int64 gaps;      // every cause of a full comparison but the first
	int64 reconnects;
	int64 comparisons; // full comparisons ended
	int64 comparison_done;
	int64 comparison_total;
	TimestampTz comparison_started_at; // 0: none has begun
	TimestampTz comparison_ended_at;   // 0: none has ended, or one is under way
	char mode[kModeTextBytes];         // how changes of Redis are seen, and why not better
	int64 outbox_keys;                 // sids changed in PostgreSQL and not yet pushed
	int64 outbox_oldest_ms;            // age of the oldest of them
	int64 pushed;                      // sessions written or removed in Redis
	int64 push_conflicts;              // pushes that found Redis changed meanwhile
	bool clock_known;
	int64 clock_difference_ms; // Redis' clock minus ours
	int64 held_postgres;       // deletes that wait for an answer, in PostgreSQL
	int64 held_redis;          // and in Redis
	int64 evictions_kept;      // sessions kept though Redis evicted their keys
	TimestampTz copied_until;  // all that either side had accepted by then is copied; 0: not known
};

// What backends ask of a mirror. Taken at the beginning of a turn.
struct MirrorRequests {
	uint64 barrier; // the highest barrier that is asked for and not reached; 0: none
	bool resync;    // a full comparison, with the answers below
	bool allow_mass_delete;
	bool refill_redis;
};

struct SupervisorSlot {
	Oid database;        // InvalidOid: free
	pid_t pid;           // 0: not running
	bool no_worker_slot; // it could not be started: max_worker_processes is used up
};

struct MirrorSlot {
	Oid database; // InvalidOid: free
	int32 store_id;
	pid_t pid;      // 0: not running, the report is the last one's
	pid_t verifier; // of the scheduled verification, 0: none under way
	bool asleep;    // it waits, and wants to be woken when the outbox is written
	MirrorReport report;
	uint64 barrier_requested; // numbers are never used twice, by whatever slot
	uint64 barrier_reached;
	bool resync_requested;
	bool allow_mass_delete;
	bool refill_redis;
	char
		background_error[kReportTextBytes]; // what keeps the supervisor's work on the store failing
	TimestampTz background_error_at;
};

// A backend that is about to drop, rename, move or copy a database.
struct BlockedDatabase {
	Oid database; // InvalidOid: free
	pid_t blocker;
};

// Reserve and attach; called from _PG_init when preloaded, never in binary upgrade mode.
void request_shared_state();
// False when the library was not preloaded: the workers and their reports do not exist.
bool shared_state_available();

// Registers the running worker; false when another one already holds the place, or the database is
// blocked. Cleared at exit. To be called before connecting to the database.
bool claim_launcher();
bool claim_supervisor(Oid database);
bool claim_mirror(Oid database, int32 store_id);
bool claim_verifier(Oid database, int32 store_id);

pid_t supervisor_pid(Oid database);
pid_t mirror_pid(Oid database, int32 store_id);
pid_t verifier_pid(Oid database, int32 store_id);
// Ids of the stores whose mirror runs in a database; `ids` has room for kMaxMirrors.
int running_mirrors(Oid database, int32 *ids);

void publish_mirror_report(Oid database, int32 store_id, const MirrorReport *report);
// For parents: says why a mirror is not running (no free worker slot, backing off).
void publish_mirror_state(Oid database, int32 store_id, MirrorState state, const char *detail);
// False when there is no report for that store.
bool get_mirror_report(Oid database, int32 store_id, MirrorReport *report, pid_t *pid);
void forget_mirror(Oid database, int32 store_id);

// Asks the mirror to say when all that both sides have accepted by now is copied, and wakes it.
// Returns the number to wait for, 0 when there is no slot. A request outlives the mirror's process,
// not its slot, which a store loses when it leaves its dual phase: ask again when barrier_state()
// says unknown.
uint64 request_barrier(Oid database, int32 store_id);
enum class BarrierState : uint8_t { unknown, pending, reached };
BarrierState barrier_state(Oid database, int32 store_id, uint64 number);
// Asks for a full comparison, and wakes the mirror. False when there is no slot.
bool request_resync(Oid database, int32 store_id, bool allow_mass_delete, bool refill_redis);
// For the mirror. The barrier stays asked for until it is reported; a resync is taken once.
void set_mirror_asleep(Oid database, int32 store_id, bool asleep);
void take_mirror_requests(Oid database, int32 store_id, MirrorRequests *requests);
void report_barrier(Oid database, int32 store_id, uint64 number);

// The last error of the supervisor's work on a store; null clears it.
void publish_background_error(Oid database, int32 store_id, const char *error);
// False when there is none; `error` has room for kReportTextBytes.
bool get_background_error(Oid database, int32 store_id, char *error, TimestampTz *at);
// Whether the supervisor of a database could not be started for want of a worker slot.
void note_missing_worker_slot(Oid database, bool missing);
bool lacks_worker_slot(Oid database);

// Wakes the launcher, or the supervisor and mirrors of a database: sets their latches.
void wake_launcher();
void wake_workers(Oid database);
// Wakes the mirror of a store if it is asleep.
void wake_mirror(Oid database, int32 store_id);

// While a database is to be dropped, renamed or copied: its workers leave and none starts.
// A block ends with unblock_databases, which ends all of this backend's, and with the backend.
void block_database(Oid database);
void unblock_databases();
bool database_is_blocked(Oid database);
// Sends SIGTERM to the workers of a database and returns their pids (room for kMaxWorkerPids).
inline constexpr int kMaxWorkerPids = 2 * kMaxMirrors + 1;
int stop_workers(Oid database, pid_t *pids);
// Sends SIGTERM to the workers of every other database.
void stop_workers_outside(const Oid *databases, int count);

} // namespace session_store
