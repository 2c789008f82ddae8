// SCAN patterns for a literal prefix.
#pragma once

#include <string>
#include <string_view>

#include "core/cpp_only.h"

namespace session_store::core {

// The pattern that matches exactly the keys that start with these bytes.
std::string glob_for_prefix(std::string_view prefix);

} // namespace session_store::core
