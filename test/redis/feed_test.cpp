// The feed against a real Redis: hints, what fetch() reads, gaps, comparison, barrier.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "redis/feed.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using std::chrono::milliseconds;
using test::PollWaiter;
using test::RedisServer;

constexpr std::chrono::seconds kPatience{20};

// Repeats `step` until `done`, at most for kPatience.
template <typename Done, typename Step>
void until(Done &&done, Step &&step) {
	const auto deadline = Feed::Clock::now() + kPatience;
	while (!done()) {
		ASSERT_LT(Feed::Clock::now(), deadline) << "waited in vain";
		step();
	}
}

void barrier(Feed &feed) {
	feed.start_barrier();
	until([&] { return feed.barrier_passed(); }, [&] { feed.wait(milliseconds{50}); });
}

// Everything that is dirty, as text: "sid" -> "value@expiry", "absent", "type:hash", ...
std::map<std::string, std::string> fetch_all(Feed &feed) {
	std::map<std::string, std::string> seen;
	while (feed.dirty() > 0) {
		for (const Item &item : feed.fetch(kMaxFetch)) {
			std::string &text = seen[std::string(item.sid)];
			switch (item.kind) {
			case ItemKind::absent:
				text = "absent";
				break;
			case ItemKind::value:
				text = std::string(item.value);
				if (item.expire_ms != kNoExpiry)
					text += "@" + std::to_string(item.expire_ms);
				break;
			case ItemKind::other_type:
				text = "type:" + std::string(item.type_name);
				break;
			case ItemKind::too_large:
				text = "too large:" + std::to_string(item.size) + ":" +
					std::to_string(item.value.size());
				break;
			case ItemKind::error:
				text = "error";
				break;
			}
		}
		feed.commit();
	}
	return seen;
}

// A whole comparison, with these sids on PostgreSQL's side.
void compare(Feed &feed, const std::vector<std::string> &postgres_sids) {
	feed.begin_comparison();
	while (feed.scan_step())
		if (feed.dirty() > 1000)
			break;
	ASSERT_FALSE(feed.scanning());
	for (const std::string &sid : postgres_sids)
		if (!feed.seen(sid))
			feed.mark(sid);
	feed.end_comparison();
}

class FeedTest : public testing::Test {
protected:
	Feed make(const std::string &prefix = "sess:", FeedLimits limits = {}) {
		return Feed(server.endpoint(), prefix, waiter, limits);
	}
	RedisServer server;
	PollWaiter waiter;
};

TEST_F(FeedTest, TellsEveryKindOfChange) {
	Feed feed = make();
	feed.connect();
	server.run({"SET", "sess:plain", "v"});
	server.run({"SET", "sess:expiring", "v", "PXAT", "4102444800123"});
	server.run({"HSET", "sess:hash", "f", "v"});
	server.run({"SET", "sess:gone", "v"});
	server.run({"DEL", "sess:gone"});
	server.run({"SET", "sess:empty", ""});
	server.run({"SET", "sess:", "the empty sid"});
	server.run({"SET", "other:1", "v"});
	barrier(feed);
	const std::map<std::string, std::string> expected{{"plain", "v"},
		{"expiring", "v@4102444800123"}, {"hash", "type:hash"}, {"gone", "absent"}, {"empty", ""},
		{"", "the empty sid"}};
	EXPECT_EQ(fetch_all(feed), expected);
	EXPECT_TRUE(feed.caught_up());
	EXPECT_EQ(feed.counters().hints, 7U);
	server.run({"EXPIRE", "other:1", "100"});
	server.run({"PERSIST", "sess:expiring"});
	barrier(feed);
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"expiring", "v"}}));
}

TEST_F(FeedTest, AnEmptyPrefixMeansEveryKey) {
	Feed feed = make("");
	feed.connect();
	server.run({"SET", "any", "1"});
	barrier(feed);
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"any", "1"}}));
	server.run({"SET", "more", "2"});
	compare(feed, {"lost"});
	EXPECT_EQ(fetch_all(feed),
		(std::map<std::string, std::string>{{"any", "1"}, {"more", "2"}, {"lost", "absent"}}));
}

TEST_F(FeedTest, PrefixesAreLiteral) {
	Feed feed = make("a*[b]?:");
	feed.connect();
	server.run({"SET", "a*[b]?:1", "1"});
	server.run({"SET", "axxbx:2", "2"});
	compare(feed, {});
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"1", "1"}}));
	EXPECT_EQ(feed.counters().other_keys, 1);
}

TEST_F(FeedTest, KeepsInFlightUntilCommit) {
	Feed feed = make();
	feed.connect();
	server.run({"SET", "sess:a", "1"});
	server.run({"SET", "sess:b", "1"});
	barrier(feed);
	EXPECT_EQ(feed.fetch(1).size(), 1U);
	EXPECT_EQ(feed.in_flight(), 1U);
	EXPECT_EQ(feed.dirty(), 1U);
	EXPECT_FALSE(feed.caught_up());
	EXPECT_EQ(feed.fetch(10).size(), 2U);
	feed.put_back(1);
	feed.commit();
	EXPECT_EQ(feed.dirty(), 1U);
	EXPECT_EQ(feed.fetch(10).size(), 1U);
	feed.put_back_all();
	EXPECT_EQ(feed.dirty(), 1U);
	EXPECT_EQ(feed.fetch(10).size(), 1U);
	feed.commit();
	EXPECT_TRUE(feed.caught_up());
	EXPECT_TRUE(feed.fetch(10).empty());
}

TEST_F(FeedTest, AChangeWhileInFlightIsReadAgain) {
	Feed feed = make();
	feed.connect();
	server.run({"SET", "sess:a", "1"});
	barrier(feed);
	ASSERT_EQ(feed.fetch(1).size(), 1U);
	server.run({"SET", "sess:a", "2"});
	barrier(feed);
	feed.commit();
	EXPECT_FALSE(feed.caught_up());
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"a", "2"}}));
}

TEST_F(FeedTest, AFlushIsAGapAndNotADelete) {
	Feed feed = make();
	feed.connect();
	feed.begin_comparison();
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	EXPECT_EQ(feed.gap(), kGapNone);
	server.run({"SET", "sess:a", "1"});
	barrier(feed);
	fetch_all(feed);
	server.run({"FLUSHDB"});
	until([&] { return feed.gap() != kGapNone; }, [&] { feed.wait(milliseconds{50}); });
	EXPECT_EQ(feed.gap(), unsigned{kGapFlushed});
	EXPECT_EQ(feed.dirty(), 0U);
	compare(feed, {"a"});
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"a", "absent"}}));
}

TEST_F(FeedTest, ASwapIsNoticedByPolling) {
	FeedLimits limits;
	limits.poll_interval = milliseconds{10};
	Feed feed = make("sess:", limits);
	feed.connect();
	feed.begin_comparison();
	server.run({"SWAPDB", "0", "1"});
	until([&] { return (feed.gap() & kGapSwapped) != 0; }, [&] { feed.wait(milliseconds{50}); });
	EXPECT_TRUE(feed.connected());
}

TEST_F(FeedTest, WhatHappenedWhileAwayIsNoticedAtReconnect) {
	Feed feed = make();
	feed.connect();
	EXPECT_EQ(feed.gap(), unsigned{kGapConnected});
	feed.begin_comparison();
	feed.disconnect();
	EXPECT_EQ(feed.gap(), unsigned{kGapConnected}) << "an unfinished comparison leaves its gap";
	server.run({"SWAPDB", "0", "1"});
	server.run({"FLUSHALL"});
	feed.connect();
	EXPECT_EQ(feed.gap(), unsigned{kGapConnected | kGapSwapped | kGapFlushed});
	feed.begin_comparison();
	server.stop();
	server.start();
	EXPECT_THROW(feed.pump(), Error);
	EXPECT_FALSE(feed.connected());
	feed.connect();
	EXPECT_NE(feed.gap() & kGapIdentity, 0U);
	EXPECT_NE(feed.gap() & kGapBreaksContinuity, 0U);
}

TEST_F(FeedTest, AKilledSubscriberIsAnError) {
	Feed feed = make();
	feed.connect();
	server.run({"CLIENT", "KILL", "TYPE", "pubsub"});
	EXPECT_THROW(until([] { return false; }, [&] { feed.wait(milliseconds{50}); }), Error);
	EXPECT_FALSE(feed.connected());
	EXPECT_THROW(feed.pump(), Error);
	EXPECT_THROW(feed.fetch(1), Error);
	EXPECT_THROW(feed.begin_comparison(), Error);
}

TEST_F(FeedTest, AFetchThatFailsLosesNothing) {
	Feed feed = make();
	feed.connect();
	server.run({"SET", "sess:a", "1"});
	barrier(feed);
	server.stop();
	EXPECT_THROW(feed.fetch(10), Error);
	EXPECT_EQ(feed.dirty(), 1U);
	EXPECT_EQ(feed.in_flight(), 0U);
}

TEST_F(FeedTest, AFrozenRedisIsATimeout) {
	Endpoint endpoint = server.endpoint();
	endpoint.command_timeout = std::chrono::seconds{2};
	FeedLimits limits;
	limits.ping_interval = milliseconds{20};
	limits.poll_interval = std::chrono::hours{1};
	Feed feed(endpoint, "sess:", waiter, limits);
	feed.connect();
	kill(server.pid(), SIGSTOP);
	try {
		until([] { return false; }, [&] { feed.wait(milliseconds{50}); });
	} catch (const Error &error) {
		EXPECT_EQ(error.kind(), ErrorKind::timeout) << error.what();
	}
	kill(server.pid(), SIGCONT);
	EXPECT_FALSE(feed.connected());
}

TEST_F(FeedTest, APublishedStringIsOnlyAHint) {
	Feed feed = make();
	feed.connect();
	server.run({"PUBLISH", "__redis__:invalidate", "sess:forged"});
	server.run({"PUBLISH", "__redis__:invalidate", "other"});
	barrier(feed);
	EXPECT_TRUE(feed.connected());
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"forged", "absent"}}));
}

TEST_F(FeedTest, AComparisonFindsEverythingOnEitherSide) {
	for (int i = 0; i < 900; i++) {
		server.run({"SET", "sess:" + std::to_string(i), "v"});
		server.run({"SET", "other:" + std::to_string(i), "v"});
	}
	Feed feed = make();
	feed.connect();
	compare(feed, {"5", "899", "gone 1", "gone 2"});
	EXPECT_EQ(feed.counters().prefix_keys, 900);
	EXPECT_EQ(feed.counters().other_keys, 900);
	EXPECT_EQ(feed.counters().database_keys, 1800);
	const auto seen = fetch_all(feed);
	EXPECT_EQ(seen.size(), 902U);
	EXPECT_EQ(seen.at("gone 1"), "absent");
	EXPECT_EQ(seen.at("899"), "v");
}

TEST_F(FeedTest, AScanWaitsWhileTooMuchIsDirty) {
	for (int i = 0; i < 2000; i++)
		server.run({"SET", "sess:" + std::to_string(i), "v"});
	FeedLimits limits;
	limits.scan_backlog = 300;
	Feed feed = make("sess:", limits);
	feed.connect();
	feed.begin_comparison();
	std::size_t read = 0;
	while (feed.scan_step()) {
		EXPECT_LE(feed.dirty(), 300U + 260U);
		if (feed.dirty() > 300) {
			read += feed.fetch(kMaxFetch).size();
			feed.commit();
		}
	}
	EXPECT_EQ(read + fetch_all(feed).size(), 2000U);
}

TEST_F(FeedTest, AFullDirtySetIsAGapThatHeals) {
	FeedLimits limits;
	limits.dirty.max_keys = 600;
	Feed feed = make("sess:", limits);
	feed.connect();
	feed.begin_comparison();
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	for (int i = 0; i < 1000; i++)
		server.run({"SET", "sess:" + std::to_string(i), "v"});
	barrier(feed);
	EXPECT_EQ(feed.gap(), unsigned{kGapOverflow});
	EXPECT_EQ(feed.dirty(), 600U);
	std::map<std::string, std::string> seen = fetch_all(feed);
	feed.begin_comparison();
	for (;;) {
		const bool more = feed.scan_step();
		seen.merge(fetch_all(feed));
		if (!more)
			break;
	}
	EXPECT_EQ(feed.gap(), kGapNone);
	EXPECT_EQ(seen.size(), 1000U);
}

TEST_F(FeedTest, AFilterThatIsFullMakesCandidatesOfAll) {
	server.run({"SET", "sess:a", "1"});
	FeedLimits limits;
	limits.filter_bytes = 0;
	Feed feed = make("sess:", limits);
	feed.connect();
	compare(feed, {"a", "b"});
	EXPECT_EQ(fetch_all(feed), (std::map<std::string, std::string>{{"a", "1"}, {"b", "absent"}}));
}

TEST_F(FeedTest, LargeValuesAreReadInBoundedBatches) {
	FeedLimits limits;
	limits.max_value = 50'000;
	limits.too_large_head = 100;
	limits.small_bytes = 500;
	limits.single_bytes = 5'000;
	limits.exchange_bytes = 9'000;
	limits.batch_bytes = 20'000;
	Feed feed = make("sess:", limits);
	feed.connect();
	std::map<std::string, std::string> expected;
	for (int i = 0; i < 60; i++) {
		const std::string sid = std::to_string(i);
		const std::size_t size = i % 7 == 0 ? 40'000 : i % 5 == 0 ? 6'000 : 1'000;
		expected[sid] = std::string(size, static_cast<char>('a' + i % 26));
		server.run({"SET", "sess:" + sid, expected[sid]});
	}
	server.run({"SET", "sess:big", std::string(50'001, 'x'), "PXAT", "4102444800000"});
	server.run({"SET", "sess:limit", std::string(50'000, 'y')});
	expected["big"] = "too large:50001:100";
	expected["limit"] = std::string(50'000, 'y');
	barrier(feed);
	std::map<std::string, std::string> seen;
	while (feed.dirty() > 0) {
		std::size_t bytes = 0;
		const auto items = feed.fetch(kMaxFetch);
		for (const Item &item : items)
			bytes += item.value.size();
		EXPECT_TRUE(bytes <= limits.batch_bytes || items.size() == 1) << bytes;
		feed.put_back_all();
		seen.merge(fetch_all(feed));
	}
	EXPECT_EQ(seen, expected);
}

// As the mirror does it: a SCAN and a batch have been asked for when the batch before needs more.
TEST_F(FeedTest, LongValuesAndTypesAreReadWhileAScanIsUnderWay) {
	FeedLimits limits;
	limits.small_bytes = 100;
	std::map<std::string, std::string> expected;
	for (int i = 0; i < 3000; i++) {
		const std::string sid = std::to_string(i);
		std::string value = sid;
		if (i % 100 == 0)
			value.resize(1000, 'x');
		if (i % 100 == 1)
			server.run({"HSET", "sess:" + sid, "f", "v"});
		else
			server.run({"SET", "sess:" + sid, value});
		expected[sid] = i % 100 == 1 ? "type:hash" : value;
	}
	Feed feed = make("sess:", limits);
	feed.connect();
	feed.begin_comparison();
	std::map<std::string, std::string> seen;
	while (feed.scan_step() || feed.dirty() > 0) {
		for (const Item &item : feed.fetch(kMaxFetch))
			seen[std::string(item.sid)] = item.kind == ItemKind::other_type
				? "type:" + std::string(item.type_name)
				: std::string(item.value);
		feed.prefetch(kMaxFetch);
		feed.commit();
	}
	feed.end_comparison();
	EXPECT_EQ(seen, expected);
}

TEST(Feed, ReadsTheSameFromARedisWithoutPexpiretime) {
	RedisServer server({"--rename-command", "PEXPIRETIME", ""});
	PollWaiter waiter;
	FeedLimits limits;
	limits.max_value = 1000;
	limits.small_bytes = 500;
	Feed feed(server.endpoint(), "sess:", waiter, limits);
	feed.connect();
	server.run({"SET", "sess:a", "1"});
	server.run({"SET", "sess:b", "2", "PXAT", "4102444800000"});
	server.run({"SET", "sess:big", std::string(1001, 'x'), "PXAT", "4102444800000"});
	server.run({"HSET", "sess:h", "f", "v"});
	feed.mark("gone");
	barrier(feed);
	std::map<std::string, ItemKind> kinds;
	for (const Item &item : feed.fetch(kMaxFetch)) {
		kinds[std::string(item.sid)] = item.kind;
		if (item.sid == "b" || item.sid == "big") {
			EXPECT_LE(std::abs(item.expire_ms - 4102444800000), 20);
		} else {
			EXPECT_EQ(item.expire_ms, kNoExpiry);
		}
	}
	EXPECT_EQ(kinds,
		(std::map<std::string, ItemKind>{{"a", ItemKind::value}, {"b", ItemKind::value},
			{"big", ItemKind::too_large}, {"h", ItemKind::other_type},
			{"gone", ItemKind::absent}}));
}

TEST(Feed, NeedsNoMoreRightsThanDocumented) {
	RedisServer server;
	server.run({"ACL", "SETUSER", "mirror", "on", ">pw", "resetchannels", "%R~sess:*",
		"&__redis__:invalidate", "-@all", "+client|tracking", "+client|id", "+client|trackinginfo",
		"+subscribe", "+ping", "+scan", "+strlen", "+mget", "+getrange", "+pexpiretime", "+pttl",
		"+type", "+multi", "+exec", "+time", "+info"});
	PollWaiter waiter;
	Endpoint endpoint = server.endpoint();
	endpoint.username = "mirror";
	endpoint.password = "pw";
	FeedLimits limits;
	limits.max_value = 10;
	limits.small_bytes = 5;
	Feed feed(endpoint, "sess:", waiter, limits);
	feed.connect();
	server.run({"SET", "sess:a", "1"});
	server.run({"SET", "sess:big", "12345678901"});
	server.run({"SET", "sess:long", "1234567890"});
	server.run({"LPUSH", "sess:list", "1"});
	server.run({"SET", "other", "1"});
	compare(feed, {"gone"});
	barrier(feed);
	EXPECT_EQ(fetch_all(feed),
		(std::map<std::string, std::string>{{"a", "1"}, {"long", "1234567890"},
			{"big", "too large:11:11"}, {"list", "type:list"}, {"gone", "absent"}}));
	server.run({"ACL", "SETUSER", "mirror", "-getrange"});
	feed.mark("a");
	std::string text;
	try {
		feed.fetch(1);
	} catch (const Error &error) {
		EXPECT_STREQ(error.code(), "NOPERM");
		text = error.what();
	}
	EXPECT_EQ(text, "Redis refused to read sessions: NOPERM");
	EXPECT_EQ(feed.dirty(), 1U);
}

// The proof of redis.md in small: random writes beside the feed, connections killed, flushes; what
// was applied must equal Redis once caught up.
TEST_F(FeedTest, ConvergesUnderWritesKillsAndFlushes) {
	std::mt19937 random(42);
	const auto below = [&](unsigned n) { return random() % n; };
	Feed feed = make();
	std::map<std::string, std::string> applied;
	const auto apply = [&] {
		for (const Item &item : feed.fetch(1 + below(kMaxFetch))) {
			const std::string sid(item.sid);
			if (item.kind == ItemKind::value)
				applied[sid] = std::string(item.value) + "@" + std::to_string(item.expire_ms);
			else if (item.kind == ItemKind::absent)
				applied.erase(sid);
			else
				FAIL() << "unexpected kind";
		}
		if (below(5) == 0)
			feed.put_back_all();
		else
			feed.commit();
	};
	const auto turn = [&] {
		try {
			if (!feed.connected())
				feed.connect();
			if (feed.gap() != kGapNone && !feed.comparing())
				feed.begin_comparison();
			feed.scan_step();
			if (feed.comparing() && !feed.scanning()) {
				for (const auto &[sid, ignored] : applied)
					if (!feed.seen(sid))
						feed.mark(sid);
				feed.end_comparison();
			}
			apply();
			feed.wait(milliseconds{0});
		} catch (const Error &) {
			feed.put_back_all();
		}
	};
	for (int round = 0; round < 1500; round++) {
		for (unsigned i = 0; i < 10; i++) {
			const std::string key = "sess:" + std::to_string(below(500));
			switch (below(6)) {
			case 0:
				server.run({"DEL", key});
				break;
			case 1:
				server.run({"PEXPIREAT", key, std::to_string(4102444800000 + below(1000))});
				break;
			case 2:
				server.run({"RENAME", key, "sess:" + std::to_string(below(500))});
				break;
			case 3:
				server.run({"APPEND", key, "x"});
				break;
			default:
				server.run({"SET", key, std::to_string(below(1'000'000))});
			}
		}
		if (below(200) == 0)
			server.run({"CLIENT", "KILL", "TYPE", below(2) == 0 ? "pubsub" : "normal"});
		if (below(500) == 0)
			server.run({"FLUSHDB"});
		turn();
	}
	const auto settled = [&] {
		if (!feed.connected() || feed.gap() != kGapNone || feed.comparing())
			return false;
		try {
			if (!feed.barrier_passed())
				barrier(feed);
		} catch (const Error &) {
			return false;
		}
		return feed.caught_up() && feed.gap() == kGapNone;
	};
	until(settled, turn);
	std::map<std::string, std::string> expected;
	const ReplyPtr keys = server.run({"KEYS", "*"});
	for (std::size_t i = 0; i < keys->elements; i++) {
		const std::string key(reply_text(*keys->element[i]));
		const ReplyPtr value = server.run({"GET", key});
		const long long expire = server.run({"PEXPIRETIME", key})->integer;
		expected[key.substr(5)] = std::string(reply_text(*value)) + "@" +
			std::to_string(expire < 0 ? kNoExpiry : std::int64_t{expire});
	}
	EXPECT_EQ(applied, expected);
	EXPECT_GT(feed.counters().connects, 1U);
}

} // namespace
} // namespace session_store::redis
