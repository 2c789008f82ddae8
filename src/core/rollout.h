// Which side owns a sid at a rollout percentage: crc32(sid) mod 100, so any language can compute
// it.
#pragma once

#include <string_view>

namespace session_store::core {

// zlib's CRC-32 of the bytes, modulo 100.
unsigned rollout_bucket(std::string_view sid) noexcept;

// Whether PostgreSQL owns the sid at this percentage (0 to 100).
bool postgres_owns(std::string_view sid, int rollout_percent) noexcept;

} // namespace session_store::core
