// How changes are noticed: tracking, notifications, or not at all; evictions; reading ahead.

#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "redis/feed.h"
#include "support/fake_server.h"
#include "support/push.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using std::chrono::milliseconds;
using test::PollWaiter;
using test::RedisServer;

void barrier(Feed &feed) {
	const auto deadline = Feed::Clock::now() + std::chrono::seconds{20};
	feed.start_barrier();
	while (!feed.barrier_passed()) {
		ASSERT_LT(Feed::Clock::now(), deadline);
		feed.wait(milliseconds{50});
	}
}

// "sid" -> "value", "absent" or "evicted", of everything dirty.
std::map<std::string, std::string> read_all(Feed &feed) {
	std::map<std::string, std::string> read;
	while (feed.dirty() > 0) {
		for (const Item &item : feed.fetch(kMaxFetch))
			read[std::string(item.sid)] = item.kind == ItemKind::value ? std::string(item.value)
				: item.kind != ItemKind::absent                        ? "other"
				: item.evicted                                         ? "evicted"
																	   : "absent";
		feed.commit();
	}
	return read;
}
using Read = std::map<std::string, std::string>;

FeedLimits quick_poll() {
	FeedLimits limits;
	limits.poll_interval = milliseconds{5};
	return limits;
}

// A Redis that has no CLIENT command, as one before version 6 has no tracking.
std::vector<std::string> without_tracking(const std::string &events) {
	return {"--rename-command", "CLIENT", "", "--notify-keyspace-events", events};
}

TEST(Mode, TrackingIsTakenWhereItCanBe) {
	RedisServer server({"--notify-keyspace-events", "AKE"});
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	EXPECT_EQ(feed.mode(), Mode::tracking);
	EXPECT_EQ(feed.mode_reason(), "");
}

TEST(Mode, NotificationsStandIn) {
	for (const char *events : {"Kg$hxe", "AKE", "Kg$x"}) {
		RedisServer server(without_tracking(events));
		PollWaiter waiter;
		Feed feed(server.endpoint(), "a*[b]:", waiter);
		feed.connect();
		EXPECT_EQ(feed.mode(), Mode::notifications) << feed.mode_reason();
		EXPECT_NE(feed.mode_reason(), "");
		server.run({"SET", "a*[b]:1", "v"});
		server.run({"SET", "a*[b]:2", "v", "EX", "100"});
		server.run({"SET", "a*[b]:3", "v"});
		server.run({"DEL", "a*[b]:3"});
		server.run({"SET", "axb:4", "v"});
		server.run({"RENAME", "a*[b]:1", "a*[b]:5"});
		barrier(feed);
		EXPECT_EQ(read_all(feed), (Read{{"1", "absent"}, {"2", "v"}, {"3", "absent"}, {"5", "v"}}));
		server.run({"PEXPIRE", "a*[b]:2", "1000000"});
		barrier(feed);
		EXPECT_EQ(feed.dirty(), 1U);
		// What an event says is no state: the key is read.
		server.run({"DEL", "a*[b]:2"});
		server.run({"SET", "a*[b]:2", "again"});
		barrier(feed);
		EXPECT_EQ(read_all(feed), (Read{{"2", "again"}}));
	}
}

TEST(Mode, NotificationsSayNothingOfAFlushThePollDoes) {
	RedisServer server(without_tracking("AK"));
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	feed.begin_comparison();
	EXPECT_TRUE(feed.confirm());
	server.run({"FLUSHALL"});
	EXPECT_FALSE(feed.confirm());
	EXPECT_EQ(feed.gap(), unsigned{kGapFlushed});
	feed.begin_comparison();
	server.run({"SWAPDB", "0", "1"});
	EXPECT_FALSE(feed.confirm());
}

TEST(Mode, NotificationsThatAreTurnedOffAreAGap) {
	RedisServer server(without_tracking("AK"));
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter, quick_poll());
	feed.connect();
	feed.begin_comparison();
	server.run({"CONFIG", "SET", "notify-keyspace-events", ""});
	const auto deadline = Feed::Clock::now() + std::chrono::seconds{20};
	while (feed.gap() == kGapNone && Feed::Clock::now() < deadline)
		feed.wait(milliseconds{10});
	EXPECT_EQ(feed.gap(), unsigned{kGapUnheard});
	EXPECT_EQ(feed.mode(), Mode::comparison_only);
}

TEST(Mode, ElseOnlyComparisonsAreLeft) {
	for (const char *events : {"", "Kx", "Eg$x"}) {
		RedisServer server(without_tracking(events));
		PollWaiter waiter;
		FeedLimits limits = quick_poll();
		limits.ping_interval = milliseconds{5};
		Feed feed(server.endpoint(), "sess:", waiter, limits);
		feed.connect();
		EXPECT_EQ(feed.mode(), Mode::comparison_only);
		EXPECT_NE(feed.mode_reason().find("notify-keyspace-events"), std::string::npos)
			<< feed.mode_reason();
		server.run({"SET", "sess:1", "v"});
		for (int i = 0; i < 20; i++)
			feed.wait(milliseconds{2});
		EXPECT_TRUE(feed.confirm());
		feed.begin_comparison();
		while (feed.scan_step()) {
		}
		feed.mark("gone");
		feed.end_comparison();
		EXPECT_EQ(read_all(feed), (Read{{"1", "v"}, {"gone", "absent"}}));
	}
}

TEST(Mode, RightsThatAreMissingChooseIt) {
	RedisServer server({"--notify-keyspace-events", "AK"});
	const auto mode_with = [&](const std::string &channels, const std::string &rights) {
		server.run({"ACL", "DELUSER", "u"});
		std::vector<std::string> words{
			"ACL", "SETUSER", "u", "on", ">pw", "resetchannels", "~*", "+@all", rights};
		if (!channels.empty())
			words.push_back(channels);
		const std::vector<std::string_view> views(words.begin(), words.end());
		server.client().append(views);
		EXPECT_FALSE(is_error(*server.client().read_reply()));
		Endpoint endpoint = server.endpoint();
		endpoint.username = "u";
		endpoint.password = "pw";
		PollWaiter waiter;
		Feed feed(endpoint, "sess:", waiter);
		feed.connect();
		return feed.mode();
	};
	EXPECT_EQ(mode_with("allchannels", "+@all"), Mode::tracking);
	EXPECT_EQ(mode_with("&__redis__:invalidate", "+@all"), Mode::tracking);
	EXPECT_EQ(mode_with("allchannels", "-client|tracking"), Mode::notifications);
	EXPECT_EQ(mode_with("allchannels", "-client"), Mode::notifications);
	EXPECT_EQ(mode_with("&__keyspace@0__:sess:*", "+@all"), Mode::notifications);
	EXPECT_EQ(mode_with("", "-client"), Mode::comparison_only);
	EXPECT_EQ(mode_with("", "+@all"), Mode::comparison_only);
}

TEST(Evictions, AreToldFromEndsWhereRedisAnnouncesThem) {
	RedisServer server({"--notify-keyspace-events", "Ee", "--maxmemory-policy", "allkeys-random"});
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	EXPECT_TRUE(feed.evictions_known());
	server.run({"SET", "sess:ended", "v"});
	server.run({"DEL", "sess:ended"});
	server.run({"SET", "other", "v"});
	for (int i = 0; i < 50; i++)
		server.run({"SET", "sess:" + std::to_string(i), std::string(100, 'v')});
	barrier(feed);
	EXPECT_EQ(read_all(feed).at("ended"), "absent");
	server.run({"CONFIG", "SET", "maxmemory", "1"});
	server.run({"SET", "sess:full", "v"});
	server.run({"CONFIG", "SET", "maxmemory", "0"});
	barrier(feed);
	const Read read = read_all(feed);
	EXPECT_EQ(read.size(), 50U);
	for (const auto &[sid, what] : read)
		EXPECT_EQ(what, "evicted") << sid;
	server.run({"SET", "sess:1", "again"});
	barrier(feed);
	server.run({"DEL", "sess:1"});
	barrier(feed);
	EXPECT_EQ(read_all(feed), (Read{{"1", "absent"}}));
}

TEST(Evictions, ConfirmingBringsThemUpToDate) {
	test::FakeServer server;
	server.announced = "Ee";
	FeedLimits limits;
	limits.ping_interval = limits.poll_interval = std::chrono::hours{1};
	Feed feed(server.endpoint(), "sess:", server, limits);
	feed.connect();
	feed.mark("a");
	ASSERT_EQ(feed.fetch(1).size(), 1U);
	EXPECT_FALSE(feed.items()[0].evicted);
	server.push("*3\r\n$7\r\nmessage\r\n$22\r\n__keyevent@0__:evicted\r\n$6\r\nsess:a\r\n");
	EXPECT_TRUE(feed.confirm());
	EXPECT_TRUE(feed.items()[0].evicted);
}

TEST(Evictions, AreNotKnownWhereRedisDoesNotAnnounceThem) {
	for (const char *events : {"", "E", "Ke", "Kgx$"}) {
		RedisServer server({"--notify-keyspace-events", events});
		PollWaiter waiter;
		Feed feed(server.endpoint(), "sess:", waiter);
		feed.connect();
		EXPECT_FALSE(feed.evictions_known()) << events;
	}
}

TEST(Evictions, AreKnownFromNotificationsToo) {
	RedisServer server(without_tracking("AK"));
	server.run({"CONFIG", "SET", "maxmemory-policy", "allkeys-random"});
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	server.run({"SET", "sess:1", "v"});
	feed.connect();
	EXPECT_TRUE(feed.evictions_known());
	server.run({"CONFIG", "SET", "maxmemory", "1"});
	server.run({"SET", "sess:2", "v"});
	server.run({"CONFIG", "SET", "maxmemory", "0"});
	barrier(feed);
	EXPECT_EQ(read_all(feed), (Read{{"1", "evicted"}}));
}

TEST(Prefetch, TheNextBatchIsReadWhileThisOneIsApplied) {
	RedisServer server;
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	for (int i = 0; i < 100; i++)
		server.run({"SET", "sess:" + std::to_string(i), std::to_string(i)});
	barrier(feed);
	std::size_t read = 0;
	while (read < 100) { // each push comes back as an echo
		const auto items = feed.fetch(30);
		const std::size_t dirty = feed.dirty();
		feed.prefetch(30);
		feed.prefetch(30);
		EXPECT_EQ(feed.dirty(), dirty);
		for (const Item &item : items)
			EXPECT_EQ(item.sid, item.value);
		EXPECT_TRUE(feed.confirm()) << "other questions to Redis may come between";
		const Push push{0, false, items[0].value, 4102444800000};
		PushResult result = PushResult::changed;
		std::string refusal;
		test::push(feed, {&push, 1}, {&result, 1}, &refusal);
		EXPECT_EQ(result, PushResult::done);
		read += items.size();
		feed.commit();
	}
	EXPECT_GE(read, 100U);
}

TEST(Prefetch, ALostConnectionLosesNothing) {
	RedisServer server;
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	for (int i = 0; i < 100; i++)
		feed.mark(std::to_string(i));
	feed.fetch(30);
	kill(server.pid(), SIGSTOP); // so that it does not answer
	feed.prefetch(30);
	server.stop();
	feed.commit();
	EXPECT_THROW(feed.fetch(30), Error);
	EXPECT_EQ(feed.dirty(), 70U);
	server.start();
	feed.connect();
	EXPECT_EQ(read_all(feed).size(), 70U);
}

TEST(Prefetch, WhatWasReadBeforeAGapIsReadAgain) {
	for (const bool compares : {false, true}) {
		RedisServer server;
		PollWaiter waiter;
		Feed feed(server.endpoint(), "sess:", waiter);
		feed.connect();
		feed.mark("a");
		feed.mark("b");
		ASSERT_EQ(feed.fetch(1).size(), 1U);
		feed.prefetch(1);
		EXPECT_TRUE(feed.confirm());
		server.run({"SWAPDB", "0", "1"});
		server.run({"SET", "sess:b", "v"});
		EXPECT_FALSE(feed.confirm());
		feed.commit();
		if (compares)
			feed.begin_comparison();
		EXPECT_EQ(read_all(feed).at("b"), "v");
	}
}

TEST(Prefetch, AScanGoesOnBesideIt) {
	RedisServer server;
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	for (int i = 0; i < 3000; i++)
		server.run({"SET", "sess:" + std::to_string(i), "v"});
	feed.connect();
	std::size_t read = 0;
	for (int round = 0; round < 2; round++) {
		feed.begin_comparison(); // the first one is given up
		for (int i = 0; feed.scan_step() && (round == 1 || i < 3); i++) {
			read += round * feed.fetch(100).size();
			feed.prefetch(100);
			feed.commit();
		}
	}
	EXPECT_FALSE(feed.scanning());
	EXPECT_EQ(feed.counters().scanned, 3000U);
	feed.end_comparison();
	EXPECT_GE(read + read_all(feed).size(), 2700U);
}

} // namespace
} // namespace session_store::redis
