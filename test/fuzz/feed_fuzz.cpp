// Fuzzes the feed: the answer to one of its commands, and what comes on its subscription, are bytes
// of the fuzzer's. It throws Error, or works on; after an Error that is no refusal it is not
// connected. Whatever happened, another feed can work with the same server.

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "redis/feed.h"
#include "support/fake_server.h"
#include "support/push.h"

namespace {

using namespace session_store;

// Name, and which of that name.
struct Step {
	const char *command;
	int n;
};
constexpr Step kSteps[] = {{"INFO", 0}, {"CONFIG", 0}, {"CLIENT ID", 0}, {"CLIENT TRACKING", 0},
	{"CLIENT TRACKINGINFO", 0}, {"SUBSCRIBE", 0}, {"SUBSCRIBE", 1}, {"INFO", 1}, {"INFO", 3},
	{"TIME", 0}, {"PEXPIRETIME", 0}, {"SCAN", 0}, {"MULTI", 0}, {"GETRANGE", 0}, {"EXEC", 0},
	{"STRLEN", 0}, {"EXEC", 1}, {"TYPE", 0}, {"SCRIPT", 0}, {"EVALSHA", 0}, {"EVAL", 0},
	{"WATCH", 0}, {"GET", 0}};

void turn(redis::Feed &feed, test::FakeServer &server, const std::string &pushed) {
	feed.connect();
	server.push(pushed);
	feed.begin_comparison();
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	feed.mark("gone");
	const auto items = feed.fetch(redis::kMaxFetch);
	feed.prefetch(redis::kMaxFetch);
	std::vector<redis::Push> pushes;
	for (std::size_t i = 0; i < items.size(); i++)
		pushes.push_back({i, false, "v", redis::kNoExpiry});
	std::vector<redis::PushResult> results(pushes.size());
	std::string refusal;
	test::push(feed, pushes, results, &refusal);
	feed.commit();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
	std::signal(SIGPIPE, SIG_IGN);
	if (size < 2)
		return 0;
	const std::string bytes(reinterpret_cast<const char *>(data + 2), size - 2);
	const std::size_t choice = data[0] % (std::size(kSteps) + 1);
	test::FakeServer server;
	server.values = {{"sess:a", "1"}, {"sess:b", std::string(100, 'x')}};
	if (choice < std::size(kSteps))
		server.script(kSteps[choice].command, kSteps[choice].n,
			{bytes, (data[1] & 1) != 0, static_cast<std::size_t>(data[1] >> 4)});
	redis::Endpoint endpoint = server.endpoint();
	endpoint.command_timeout = std::chrono::milliseconds{3};
	redis::FeedLimits limits;
	limits.small_bytes = 50;
	limits.ping_interval = limits.poll_interval = std::chrono::hours{1};
	redis::Feed feed(endpoint, "sess:", server, limits);
	try {
		turn(feed, server, choice == std::size(kSteps) ? bytes : std::string());
	} catch (const redis::Error &error) {
		if (error.kind() != redis::ErrorKind::refused && feed.connected())
			std::abort();
	}
	endpoint.connect_timeout = endpoint.command_timeout = std::chrono::seconds{10};
	redis::Feed healthy(endpoint, "sess:", server, limits);
	try {
		healthy.connect();
		healthy.mark("a");
		healthy.fetch(redis::kMaxFetch);
	} catch (const redis::Error &) { // an answer that is still to come
	}
	return 0;
}
