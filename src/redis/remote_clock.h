// What Redis' clock says, compared with ours.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "redis/connection.h"

#include "core/cpp_only.h"

namespace session_store::redis {

// Microseconds since 1970 of a reply to TIME; throws Error kind protocol when it is none.
std::int64_t time_micros(const redisReply &reply);

// Asks TIME now and then, takes half of the round trip for the way back, and believes the quickest
// of the last answers.
class RemoteClock {
public:
	// Asks once. Where Redis refuses, it is not asked again until reset().
	void measure(Connection &connection);
	void reset() noexcept { *this = RemoteClock{}; }
	// Redis' clock minus ours; nothing when it is not known.
	std::optional<std::chrono::microseconds> difference() const;
	// Milliseconds since 1970 by Redis' clock, by ours where its is not known.
	std::int64_t now_ms() const;

private:
	static constexpr std::size_t kSamples = 8;
	using Duration = std::chrono::steady_clock::duration;
	struct Sample {
		Duration round_trip = Duration::max();
		std::chrono::microseconds difference{};
	};
	std::array<Sample, kSamples> samples_;
	std::size_t next_ = 0;
	bool refused_ = false;
};

} // namespace session_store::redis
