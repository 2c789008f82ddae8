// session_store.repartition_changes: the sids that are written while a store is repartitioned.
//
// Each table of the old layout has a trigger that notes them. Where the functions write a row
// without a statement, no trigger fires, and they note it themselves.
#pragma once

#include "store/registry.h"

namespace session_store {

// The row of that sid was written.
void note_written(int32 store_id, Datum sid);

} // namespace session_store
