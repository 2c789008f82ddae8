// Waiting for Redis on the worker's latch, so that a worker can be stopped while it waits.
#pragma once

#include "redis/waiter.h"

namespace session_store {

// The waiter of this process; lives as long as the process.
redis::Waiter *latch_waiter();

// Raises what went wrong inside a wait, where it could not be raised, as an ERROR; then serves
// interrupts. For the glue, once no C++ frame is left.
void finish_wait();

} // namespace session_store
