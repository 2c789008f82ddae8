// The barrier at a change of phase: transactions that may have written under the old one.
#pragma once

#include "postgres/pg.h"

namespace session_store {

// Takes down which transactions hold a lock for writing on the table now. A transaction that comes
// later reads the phase after it has locked the table, so it knows the present one. Within a
// transaction.
// Returns whether there are any.
bool note_old_writers(Oid relation);

// True once, when those that were noted have all ended: what they wrote can be seen now.
bool old_writers_have_ended(Oid relation);

} // namespace session_store
