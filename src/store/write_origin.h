// Who writes a session row: lets the one row trigger treat the mirror and the functions rightly.
#pragma once

#include "postgres/pg.h"

namespace session_store {

enum class WriteOrigin : uint8_t {
	application,  // any statement of a user, direct or through the functions
	mirror,		  // a copy of what Redis holds: no guard, no refusal in dual phases, no tombstone
	housekeeping, // destroy: removes without a tombstone
};

// What the row trigger sees while a statement of ours runs on `relation`. Reset by end_write, and
// at the end of any (sub)transaction.
void begin_write(Oid relation, WriteOrigin origin, bool user_id_is_settled);
void end_write();

}  // namespace session_store
