// Keeping what the last verification of a store found.
#pragma once

#include "mirror/verification.h"
#include "postgres/pg.h"

namespace session_store {

inline constexpr int64 kVerifyTolerance = 1000000; // microseconds: how far expiries may differ

// Within a transaction that may write; else does nothing.
void record_verification(const Verification *verification);

} // namespace session_store
