// Measures the feed against a Redis of its own: a comparison of many keys, fetching, and the memory
// that large values take. Not a test: prints numbers. Arguments: keys, bytes per value.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "redis/feed.h"
#include "support/push.h"
#include "support/redis_server.h"

using namespace session_store;

namespace {

double seconds_since(redis::Feed::Clock::time_point start) {
	return std::chrono::duration<double>(redis::Feed::Clock::now() - start).count();
}

// A field of /proc/self/status in megabytes, such as VmRSS or VmHWM.
long status_megabytes(const std::string &field) {
	std::ifstream status("/proc/self/status");
	std::string line;
	while (std::getline(status, line))
		if (line.starts_with(field + ":"))
			return std::stol(line.substr(field.size() + 1)) / 1024;
	return -1;
}

std::size_t drain(redis::Feed &feed) {
	std::size_t count = 0;
	while (feed.dirty() > 0) {
		count += feed.fetch(redis::kMaxFetch).size();
		feed.prefetch(redis::kMaxFetch);
		feed.commit();
	}
	return count;
}

} // namespace

int main(int argc, char **argv) {
	std::signal(SIGPIPE, SIG_IGN);
	const int keys = argc > 1 ? std::stoi(argv[1]) : 200'000;
	const std::size_t bytes = argc > 2 ? std::stoul(argv[2]) : 450;
	test::RedisServer server;
	test::PollWaiter waiter;
	redis::Connection &client = server.client();
	const std::string value(bytes, 'v');
	for (int i = 0; i < keys; i++) {
		client.append({"SET", "sess:" + std::to_string(i), value, "EX", "86400"});
		if (i % 100 == 99 || i == keys - 1)
			for (int j = 0; j <= i % 100; j++)
				client.read_reply();
	}
	redis::FeedLimits limits;
	limits.scan_backlog = static_cast<std::size_t>(keys) + 1000;
	redis::Feed feed(server.endpoint(), "sess:", waiter, limits);
	feed.connect();

	auto start = redis::Feed::Clock::now();
	feed.begin_comparison();
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	double took = seconds_since(start);
	std::printf("scan alone: %zu keys in %.2f s, %.0f keys/s\n", feed.dirty(), took, keys / took);

	start = redis::Feed::Clock::now();
	const std::size_t fetched = drain(feed);
	took = seconds_since(start);
	std::printf("fetch: %zu keys of %zu bytes in %.2f s, %.0f keys/s\n", fetched, bytes, took,
		static_cast<double>(fetched) / took);

	limits.scan_backlog = 10'000;
	redis::Feed comparing(server.endpoint(), "sess:", waiter, limits);
	comparing.connect();
	start = redis::Feed::Clock::now();
	comparing.begin_comparison();
	std::size_t compared = 0;
	for (;;) {
		const bool more = comparing.scan_step();
		compared += comparing.fetch(redis::kMaxFetch).size();
		comparing.prefetch(redis::kMaxFetch);
		comparing.commit();
		if (!more)
			break;
	}
	compared += drain(comparing);
	took = seconds_since(start);
	std::printf("scan and fetch: %zu keys in %.2f s, %.0f keys/s\n", compared, took,
		static_cast<double>(compared) / took);

	start = redis::Feed::Clock::now();
	std::size_t pushed = 0;
	for (int i = 0; i < keys; i++)
		comparing.mark(std::to_string(i));
	double pushing = 0;
	while (pushed < static_cast<std::size_t>(keys)) { // each comes back as an echo
		const auto items = comparing.fetch(redis::kMaxFetch);
		comparing.prefetch(redis::kMaxFetch);
		std::vector<redis::Push> pushes;
		for (std::size_t i = 0; i < items.size(); i++)
			pushes.push_back({i, false, value, items[i].expire_ms + 1000});
		std::vector<redis::PushResult> results(items.size());
		std::string refusal;
		const auto begun = redis::Feed::Clock::now();
		test::push(comparing, pushes, results, &refusal);
		pushing += seconds_since(begun);
		pushed += static_cast<std::size_t>(
			std::count(results.begin(), results.end(), redis::PushResult::done));
		comparing.commit();
	}
	took = seconds_since(start);
	std::printf("fetch and push: %zu keys in %.2f s, %.0f keys/s; of that pushing %.2f s\n", pushed,
		took, static_cast<double>(pushed) / took, pushing);

	std::printf("memory before large values: %ld MB\n", status_megabytes("VmRSS"));
	const std::string large(5'000'000, 'l');
	constexpr int kLarge = 100;
	for (int i = 0; i < kLarge; i++)
		server.run({"SET", "sess:large" + std::to_string(i), large});
	start = redis::Feed::Clock::now();
	for (int i = 0; i < kLarge; i++)
		feed.mark("large" + std::to_string(i));
	const std::size_t read = drain(feed);
	took = seconds_since(start);
	std::printf("fetch: %zu keys of 5 MB in %.2f s; memory now %ld MB, most %ld MB\n", read, took,
		status_megabytes("VmRSS"), status_megabytes("VmHWM"));
}
