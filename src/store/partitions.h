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
};

// Each is one short transaction's work, as the table's owner; the caller commits. `wait_ms` is how
// long a lock may be waited for, 0 for not at all.

// Makes the next partition that is missing, with the sessions of the catch-all that belong there.
StepResult make_partition_step(Store *store, int wait_ms, PartitionWork *work);
// Drops the oldest partition whose sessions all expired at least cleanup_grace ago. Where the table
// is in use, the partition is emptied at least.
StepResult drop_partition_step(Store *store, int wait_ms, PartitionWork *work);

} // namespace session_store
