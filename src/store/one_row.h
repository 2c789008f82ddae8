// One sid, one row, in a partitioned table: what a unique index does where there can be none.
//
// Who inserts a sid locks it first, until the end of the transaction, and then looks whether any
// partition has a row of it. Who changes, moves or removes a row that is there needs no more than
// the row's own lock.
#pragma once

#include "store/registry.h"

namespace session_store {

// Locks `sid` (a text Datum) of the store against other inserts of it.
void lock_sid(const Store *store, Datum sid);
// The same without waiting: false when somebody else has it.
bool try_lock_sid(const Store *store, Datum sid);

// Whether any partition has a row of `sid`, committed or written by this transaction. Waits for
// transactions that are inserting or removing one, unless `waits` is false: then theirs counts as
// one. With the sid locked the answer stays "no" until the end of the transaction.
bool has_row(Store *store, Datum sid, bool waits = true);

} // namespace session_store
