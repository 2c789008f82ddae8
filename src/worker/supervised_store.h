// What the supervisor of a database knows and does about one store.
#pragma once

#include "store/cleanup.h"
#include "store/registry.h"
#include "worker/child.h"
#include "worker/worker.h"

namespace session_store {

// A run of cleanup, and when the next one is due.
struct CleanupJob {
	bool running;
	TimestampTz last_ended; // DT_NOBEGIN: never
	TimestampTz started;
	TimestampTz last_batch; // DT_NOBEGIN: none in this run
	bool in_the_way;        // the last batch met somebody's lock: tried again soon
	CleanupProgress progress;
	unsigned failures; // in a row
	TimestampTz failed_at;
	WorkerFailure failure; // what was logged last
};

// One of the things that partitions need: making, dropping, freeing what was dropped, going on with
// a repartition.
struct PartitionTask {
	TimestampTz next;      // when it is looked at again
	unsigned blocked;      // tries in vain in a row
	WorkerFailure failure; // what was logged last
};
inline constexpr int kPartitionTasks = 4;

// Plain data in the supervisor's own memory.
struct SupervisedStore {
	StoreSettings settings;
	bool present; // found in the registry at the last look
	Child mirror;
	Child verifier;
	TimestampTz verified_at;    // by schedule or by call; DT_NOBEGIN: never
	TimestampTz unwanted_since; // of the mirror; 0: it is wanted
	CleanupJob cleanup;
	PartitionTask partition_tasks[kPartitionTasks]; // zero: due
};

// Starts, stops and reports on the store's mirror. Returns milliseconds until it wants to be called
// again.
int64 manage_mirror(SupervisedStore *store, TimestampTz now);
// The mirror of a store that is gone. True when nothing is left to wait for.
bool retire_mirror(SupervisedStore *store, TimestampTz now);

// Starts the store's verification when it is due, and stops one that is not wanted any more.
void manage_verifier(SupervisedStore *store, TimestampTz now);

// When this store's cleanup wants to do something next: a run or a batch.
TimestampTz next_cleanup_step(const SupervisedStore *store, TimestampTz now);
// Does it: one batch at most.
void step_cleanup(SupervisedStore *store);

// When this store's partitions want to be looked at next.
TimestampTz next_partition_step(SupervisedStore *store);
// Does it: one short transaction at most.
void step_partitions(SupervisedStore *store);

} // namespace session_store
