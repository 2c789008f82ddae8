// Locking the row of a session by its index.
//
// In a partitioned table a row may be moved meanwhile. A statement of PostgreSQL's that waits for a
// row which is then moved to another partition fails. A function locks the row first, and follows
// it; its statement finds it where it is.
#pragma once

#include "store/probe.h"

namespace session_store {

// Whether the caller may lock rows of the table by its index; else a statement has to.
bool may_lock(Store *store, Relation table);

// Locks for this transaction the row that a probe stands on, which the snapshot sees. False when
// there is another version of it by now, or none; under LockWaitSkip, which never waits, also when
// somebody else has it locked.
bool lock_found(TableProbe *at, Snapshot snapshot, LockWaitPolicy policy);

// Locks the row of `sid` for this transaction. False when there is none. Where the caller may not
// write the table, or row-level security applies, it locks nothing and says whether there is one;
// the statement that follows says what is wrong.
bool lock_row(Store *store, Relation table, text *sid);

// Before a statement that changes the one session: locks its row where that is needed. Under a
// snapshot of the transaction's it is not: what was changed since is an error anyway.
void prepare_write(Store *store, Relation table, text *sid);

// ERROR serialization_failure, as PostgreSQL reports a row that another transaction changed.
void report_concurrent_update();

} // namespace session_store
