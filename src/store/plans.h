// The statements of the session functions: prepared once a backend and store, run through SPI.
#pragma once

#include "store/registry.h"

namespace session_store {

// The saved plan of that statement. Needs an SPI connection; the plan lives until the store
// changes.
SPIPlanPtr store_plan(Store *store, StorePlan kind);

// "schema"."table" of the store, quoted, palloc'd.
char *quoted_table(const Store *store);

} // namespace session_store
