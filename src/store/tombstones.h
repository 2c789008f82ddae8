// Tombstones: sids that were ended within logout_guard, and the late writes they refuse.
#pragma once

#include "store/registry.h"

namespace session_store {

// Notes that `sid` (a text Datum) was ended now. In the transaction that removes the row.
void write_tombstone(const StoreSettings *settings, Datum sid, TimestampTz now);
// Whether `sid` was ended less than logout_guard ago. Waits for a logout that is under way, and
// sees one that ended after this transaction's snapshot.
bool was_ended(const StoreSettings *settings, Datum sid, TimestampTz now);
// Removes the tombstone of `sid`, if there is one.
void remove_tombstone(const StoreSettings *settings, Datum sid);
// Removes every tombstone of the store.
void remove_tombstones(int32 store_id);

} // namespace session_store
