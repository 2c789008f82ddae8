// How far Redis' clock is from ours.
#pragma once

#include <chrono>
#include <optional>

#include "redis/connection.h"

#include "core/cpp_only.h"

namespace session_store::redis {

// Redis' clock minus ours, by the quickest of a few exchanges, half a round trip allowed for;
// nothing when Redis refuses TIME.
std::optional<std::chrono::microseconds> clock_difference(Connection &connection);

} // namespace session_store::redis
