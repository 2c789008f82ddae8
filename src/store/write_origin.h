// Who writes a session row: lets the one row trigger treat the mirror and the functions rightly.
#pragma once

#include "postgres/pg.h"

namespace session_store {

enum class WriteOrigin : uint8_t {
	application,  // any statement of a user, direct or through the functions
	mirror,       // a copy of what Redis holds: no guard, no refusal in dual phases, no tombstone
	housekeeping, // destroy: removes without a tombstone
};

// What the row trigger is to know while a statement of ours runs on `relation`. Holds until its
// end_write, or until the (sub)transaction ends by an error. Writes may be nested.
// `sid_is_free`: of a partitioned table, that the one sid to be inserted is locked and has no row.
void begin_write(
	Oid relation, WriteOrigin origin, bool user_id_is_settled, bool sid_is_free = false);
void end_write();

// For the row trigger: what begin_write said for this table, or application.
WriteOrigin write_origin(Oid relation);
bool user_id_is_settled(Oid relation);
bool sid_is_free(Oid relation);

// Counts the rows that the logout guard took back after they were inserted; a statement that
// inserts one row compares before and after.
extern uint64 guarded_inserts;

} // namespace session_store
