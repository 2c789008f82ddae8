// What a person asks of a running mirror.
#pragma once

#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

// ERROR, with the remedy, when no mirror of the store can run here.
void require_mirror(const StoreSettings *store);

// Waits until all that either side has accepted by now is copied: true, or false once `timeout`
// microseconds have passed. ERROR when the mirror cannot run, now or any more.
bool wait_for_barrier(int32 store_id, int64 timeout);

// One look at a barrier, which is asked for first where *number is 0 or was lost: whether it is
// reached. Needs no transaction. *number stays 0 when there is no place for the mirror.
bool poll_barrier(int32 store_id, uint64 *number);
// Pauses between two looks, and serves interrupts.
void pause_for_barrier();

} // namespace session_store
