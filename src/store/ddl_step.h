// Steps that change the layout of a table which is in use: they never make a foreground statement
// wait noticeably. A step that cannot have its locks at once, or within a few milliseconds, leaves
// nothing behind and is tried again (core::lock_try says when). A batch of cleanup is such a step
// too.
#pragma once

#include "postgres/pg.h"

namespace session_store {

enum class StepResult : uint8_t {
	nothing, // is due
	done,
	in_the_way, // somebody else; nothing was changed
};

// Runs `step` in a subtransaction, and undoes it unless it returns done. A lock that it could not
// have in time, or a row that somebody changed meanwhile, is in the way; any other error goes on.
StepResult try_ddl_step(StepResult (*step)(void *), void *argument);

// Locks a relation until the end of the transaction. With wait_ms 0: false when somebody holds a
// conflicting lock. Otherwise waits that long, and then raises lock_not_available, which
// try_ddl_step takes for "in the way".
bool lock_for_ddl(Oid relation, LOCKMODE mode, int wait_ms);
// Lets statements wait that long at most for the locks which they take themselves, likewise, until
// AtEOXact_GUC(false, what this returned).
int limit_lock_waits(int wait_ms);
// Whether lock_for_ddl would have it at once; does not keep it.
bool could_lock(Oid relation, LOCKMODE mode);

} // namespace session_store
