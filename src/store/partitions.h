// Keeping the partitions of a store: those ahead are made, those wholly past expiry are dropped.
#pragma once

#include "store/ddl_step.h"
#include "store/registry.h"

namespace session_store {

// The partitions of a new store, which nobody uses yet. Needs an SPI connection.
void make_first_partitions(const char *store);

// What a step did, for the log of actions and for people.
struct PartitionWork {
	Oid partition;
	int64 moved; // sessions out of the catch-all
	int64 rest;  // microseconds that the next step of the kind is to wait for
};

// What partitions() shows as the last action; null forgets it. Needs an SPI connection.
void note_action(const Store *store, Oid partition, const char *action);

// Each is one short transaction's work, as the table's owner; the caller commits. `wait_ms` is how
// long a lock may be waited for, 0 for not at all.

// Makes the next partition that is missing, with the sessions of the catch-all that belong there.
StepResult make_partition_step(Store *store, int wait_ms, PartitionWork *work);
// Drops the oldest partition whose sessions all expired at least cleanup_grace ago. A large one is
// detached only: free_leftover_step does the rest. Where the table is in use, a small one is
// emptied at least.
StepResult drop_partition_step(Store *store, int wait_ms, PartitionWork *work);

} // namespace session_store
