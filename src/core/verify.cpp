// Differences between two sides.

#include <algorithm>

#include "core/verify.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

// The two sides are not looked at in the same moment, nor are clocks compared exactly.
constexpr std::int64_t kMargin = 100'000;

constexpr const char *kNames[] = {
	"none", "unknown", "missing_in_postgres", "missing_in_redis", "payload", "expire"};

bool is_over(std::int64_t expire, const VerifyRules &rules) noexcept {
	const std::int64_t latest = rules.now + std::max<std::int64_t>(rules.redis_ahead, 0);
	return expire != kNeverExpires && expire <= latest + kMargin;
}

bool is_far(std::int64_t a, std::int64_t b, std::int64_t tolerance) noexcept {
	if (a == b)
		return false;
	if (a == kNeverExpires || b == kNeverExpires)
		return true;
	return std::max(a, b) - std::min(a, b) > tolerance;
}

} // namespace

const char *difference_name(Difference difference) noexcept {
	return kNames[static_cast<int>(difference)];
}

Difference find_difference(const Sighting &seen, const VerifyRules &rules) noexcept {
	const SideState &redis = seen.redis;
	const SideState &postgres = seen.postgres;
	if (redis.presence == Presence::unknown || postgres.presence == Presence::unknown)
		return Difference::unknown;
	if (redis.presence == Presence::rejected)
		return Difference::none;
	const bool in_redis = redis.presence == Presence::present;
	const bool in_postgres = postgres.presence == Presence::present;
	if (in_redis && in_postgres) {
		if (is_over(redis.expire, rules) && is_over(postgres.expire, rules))
			return Difference::none;
		if (redis.digest != postgres.digest)
			return Difference::payload;
		return is_far(redis.expire, postgres.expire, rules.tolerance) ? Difference::expire
																	  : Difference::none;
	}
	if (in_redis && !is_over(redis.expire, rules))
		return Difference::missing_in_postgres;
	if (in_postgres && !is_over(postgres.expire, rules))
		return Difference::missing_in_redis;
	return Difference::none;
}

bool same_state(const SideState &a, const SideState &b) noexcept {
	if (a.presence != b.presence)
		return false;
	return a.presence != Presence::present || (a.digest == b.digest && a.expire == b.expire);
}

} // namespace session_store::core
