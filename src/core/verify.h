// Whether a session differs between the two sides, from one sighting of each.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

namespace session_store::core {

enum class Presence : std::uint8_t {
	absent,
	present,
	rejected, // there, but not to be mirrored: counted apart
	unknown,  // not known this time: to be looked at again
};

// What one side held of a sid. Times are microseconds of any one epoch.
struct SideState {
	Presence presence = Presence::unknown;
	std::uint64_t digest = 0; // of the payload by value
	std::int64_t expire = 0;  // kNeverExpires: never
};
inline constexpr std::int64_t kNeverExpires = std::numeric_limits<std::int64_t>::max();

struct Sighting {
	SideState redis;
	SideState postgres;
};
static_assert(std::is_trivially_destructible_v<Sighting>);

struct VerifyRules {
	std::int64_t now = 0;
	std::int64_t redis_ahead = 0; // Redis' clock minus ours
	std::int64_t tolerance = 0;   // of expiries
};

enum class Difference : std::uint8_t {
	none,
	unknown, // to be looked at again
	missing_in_postgres,
	missing_in_redis,
	payload,
	expire,
};

const char *difference_name(Difference difference) noexcept;

// What has expired by either clock, or is about to, is missing nowhere.
Difference find_difference(const Sighting &seen, const VerifyRules &rules) noexcept;

bool same_state(const SideState &a, const SideState &b) noexcept;

} // namespace session_store::core
