// What is due, and how long to back off.

#include <algorithm>

#include "core/schedule.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

constexpr Millis kPauseWithoutWaiting{50};
constexpr Millis kFirstLockWait{10};
constexpr Millis kFirstLockPause{5000};
constexpr unsigned kMostLockDoublings = 2;

// The finalizer of splitmix64: enough to spread seeds.
std::uint64_t mix(std::uint64_t value) noexcept {
	value += 0x9e3779b97f4a7c15U;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
	return value ^ (value >> 31);
}

} // namespace

Millis until_due(Millis now, Millis last, Millis interval) noexcept {
	if (last == kNever)
		return interval > Millis::zero() ? Millis::zero() : kLongestWait;
	if (interval <= Millis::zero())
		return kLongestWait;
	if (last > now)
		return std::min(interval, kLongestWait);
	const Millis passed = now - last;
	return passed >= interval ? Millis::zero() : std::min(interval - passed, kLongestWait);
}

Millis backoff(unsigned failures, std::uint64_t jitter_seed) noexcept {
	if (failures == 0)
		return Millis::zero();
	Millis wait = kFirstBackoff;
	for (unsigned i = 1; i < failures && wait < kLongestBackoff; i++)
		wait *= 2;
	wait = std::min(wait, kLongestBackoff);
	if (jitter_seed == 0)
		return wait;
	const auto quarter = static_cast<std::uint64_t>(wait.count()) / 4;
	return wait -
		Millis{static_cast<Millis::rep>(mix(jitter_seed ^ mix(failures)) % (quarter + 1))};
}

LockTry lock_try(unsigned failures) noexcept {
	if (failures < kTriesWithoutWaiting)
		return {Millis::zero(), kPauseWithoutWaiting};
	const int longer = 1 << std::min(failures - kTriesWithoutWaiting, kMostLockDoublings);
	return {kFirstLockWait * longer, kFirstLockPause * longer};
}

Millis until_retry(Millis now, Millis last, Millis interval, unsigned failures,
	std::uint64_t jitter_seed) noexcept {
	return until_due(now, last, failures == 0 ? interval : backoff(failures, jitter_seed));
}

} // namespace session_store::core
