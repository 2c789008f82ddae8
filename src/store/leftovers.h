// Leftovers: partitions that were taken off their store, and whose space is given back in slices.
#pragma once

#include "store/partitions.h"

namespace session_store {

// How long a step waits for locks on what hangs on a partition, in milliseconds.
inline constexpr int kDependentsWait = 10;

// Locks a partition with its TOAST table for being dropped, without waiting. False when somebody is
// in the way, or it is gone.
bool lock_for_drop(Oid partition);
// Whether a partition of that owner's table is so large that it is better detached than dropped.
bool is_worth_detaching(Oid partition, Oid owner);
// Makes a partition of `table` a leftover: both are locked for that, and an SPI connection is open.
// False when somebody's lock is in the way. ERROR when something depends on the partition that
// would keep it from being dropped.
bool detach_as_leftover(Oid table, Oid partition);

// What is left of former partitions of `table`, the oldest first.
List *leftovers_of(Oid table);
// How much that is. -1: it is gone.
int64 bytes_of_leftover(Oid leftover);
// Drops them all, however large they are. Needs an SPI connection.
void drop_leftovers(Oid table);

// Gives back a slice of the oldest: a step like those of partitions.h.
StepResult free_leftover_step(Store *store, int wait_ms, PartitionWork *work);
// Takes all those steps, for a procedure, unless there is a worker that does. False when somebody
// is in the way.
bool free_leftovers(const char *store, TimestampTz until);

} // namespace session_store
