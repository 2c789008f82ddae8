// Leaving the processor to whoever waits for one.
//
// The kernel interrupts who computes for long at a tick of its clock only, up to 4 ms later: where
// Redis and its clients have no processor to spare, a mirror that copies all would make them so
// late. So it asks every now and then whether anybody waits. If nobody does, that takes about a
// microsecond.
#pragma once

#include "postgres/pg.h"

namespace session_store {

// Whether this process gives way. It begins as one that does not.
void give_way(bool on);

// To be called in loops, where no lock of a page is held: gives way when it has not for long.
void yield_if_due();

} // namespace session_store
