// What the procedures that commit on their way have in common.
#pragma once

#include "store/registry.h"

namespace session_store {

// ERROR when the procedure was called where it cannot commit or write. `name` is that of the
// procedure.
void require_commits(FunctionCallInfo fcinfo, const char *name);

// Commits, and begins a transaction that is READ COMMITTED whatever the session's default: at a
// higher level a row that somebody just changed would be an error. Needs a nonatomic SPI
// connection.
void next_transaction();

// The commit of this transaction need not wait for the disk: what a crash takes back is done again.
void commit_without_waiting();

// Waits on the latch; serves interrupts.
void wait_microseconds(int64 microseconds);

// The caller's own store, looked up anew: settings and rights may change between transactions.
Store *own_store(const char *name);

} // namespace session_store
