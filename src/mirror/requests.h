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

} // namespace session_store
