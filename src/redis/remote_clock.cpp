// Comparing Redis' clock with ours.

#include <algorithm>
#include <charconv>

#include "redis/remote_clock.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::microseconds;
using std::chrono::system_clock;

constexpr std::int64_t kMicros = 1'000'000;
constexpr std::int64_t kLastSecond = std::int64_t{1} << 40; // nothing overflows up to here

microseconds our_time() {
	return std::chrono::floor<microseconds>(system_clock::now().time_since_epoch());
}

} // namespace

std::int64_t time_micros(const redisReply &reply) {
	std::int64_t parts[2] = {0, 0};
	bool good = is_array(reply) && reply.elements == 2;
	for (std::size_t i = 0; good && i < 2; i++) {
		const std::string_view text = reply_text(*reply.element[i]);
		const char *end = text.data() + text.size();
		const auto [ptr, error] = std::from_chars(text.data(), end, parts[i]);
		good = error == std::errc{} && ptr == end && parts[i] >= 0;
	}
	if (!good || parts[0] > kLastSecond || parts[1] >= kMicros)
		throw Error(ErrorKind::protocol, "Redis gave an unexpected answer to TIME");
	return parts[0] * kMicros + parts[1];
}

void RemoteClock::measure(Connection &connection) {
	if (refused_)
		return;
	const auto start = std::chrono::steady_clock::now();
	const microseconds ours = our_time();
	const ReplyPtr reply = connection.command({"TIME"});
	const Duration round_trip = std::chrono::steady_clock::now() - start;
	if (is_error(*reply)) {
		refused_ = true;
		return;
	}
	const microseconds middle = ours + std::chrono::floor<microseconds>(round_trip / 2);
	samples_[next_] = {round_trip, microseconds{time_micros(*reply)} - middle};
	next_ = (next_ + 1) % kSamples;
}

std::optional<microseconds> RemoteClock::difference() const {
	const auto best = std::min_element(samples_.begin(), samples_.end(),
		[](const Sample &a, const Sample &b) { return a.round_trip < b.round_trip; });
	if (best->round_trip == Duration::max())
		return std::nullopt;
	return best->difference;
}

std::int64_t RemoteClock::now_ms() const {
	const microseconds now = our_time() + difference().value_or(microseconds::zero());
	return std::chrono::floor<std::chrono::milliseconds>(now).count();
}

} // namespace session_store::redis
