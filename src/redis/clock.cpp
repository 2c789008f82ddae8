// Comparing clocks by TIME.

#include <charconv>
#include <cstdint>
#include <string_view>

#include "redis/clock.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::microseconds;
using Clock = std::chrono::system_clock;

constexpr int kExchanges = 5;

microseconds since_epoch(Clock::time_point time) {
	return std::chrono::duration_cast<microseconds>(time.time_since_epoch());
}

std::int64_t number(const redisReply &reply) {
	const std::string_view text = reply_text(reply);
	std::int64_t value = 0;
	std::from_chars(text.data(), text.data() + text.size(), value);
	return value;
}

} // namespace

std::optional<microseconds> clock_difference(Connection &connection) {
	std::optional<microseconds> best_trip;
	microseconds difference{0};
	for (int i = 0; i < kExchanges; i++) {
		const microseconds before = since_epoch(Clock::now());
		const ReplyPtr reply = connection.command({"TIME"});
		const microseconds trip = since_epoch(Clock::now()) - before;
		if (!is_array(*reply) || reply->elements != 2)
			return std::nullopt;
		if (best_trip && trip >= *best_trip)
			continue;
		best_trip = trip;
		difference = std::chrono::seconds{number(*reply->element[0])} +
			microseconds{number(*reply->element[1])} - (before + trip / 2);
	}
	return difference;
}

} // namespace session_store::redis
