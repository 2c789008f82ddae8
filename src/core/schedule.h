// What is due, as pure functions of (now, last, interval, failures): tests call them, never sleep.
#pragma once

#include <chrono>
#include <cstdint>

namespace session_store::core {

// A time on any clock, as long as one caller uses one clock.
using Millis = std::chrono::milliseconds;

// "It never happened": due at once.
inline constexpr Millis kNever = Millis::min();

inline constexpr Millis kFirstBackoff{100};
inline constexpr Millis kLongestBackoff{4000};

// How long until something done last at `last` is to be done again; zero when it is due. A last
// time in the future (a clock set back) never delays by more than one interval. An interval that
// is not positive means never: kLongestWait.
inline constexpr Millis kLongestWait = std::chrono::hours{24 * 365};
Millis until_due(Millis now, Millis last, Millis interval) noexcept;

inline bool due(Millis now, Millis last, Millis interval) noexcept {
	return until_due(now, last, interval) == Millis::zero();
}

// How long to wait after that many failures in a row: 0 after none, then 100 ms doubling to 4 s.
// A seed other than 0 takes off up to a quarter, always the same for the same seed and count, so
// that many workers do not come back at once.
Millis backoff(unsigned failures, std::uint64_t jitter_seed = 0) noexcept;

// until_due for something that is tried again with backoff after failures, and else at `interval`.
Millis until_retry(Millis now, Millis last, Millis interval, unsigned failures,
	std::uint64_t jitter_seed = 0) noexcept;

// How to try for a lock behind which others would queue, after that many tries in vain: how long to
// wait for it (zero: not at all), and how long to pause before the next try. The waits together
// take less than 1 % of the time.
struct LockTry {
	Millis wait;
	Millis pause;
};
inline constexpr unsigned kTriesWithoutWaiting = 20;
LockTry lock_try(unsigned failures) noexcept;

} // namespace session_store::core
