// What was pushed comes back as a hint: when it needs no look, and when it does.

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "redis/feed.h"
#include "support/push.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using std::chrono::milliseconds;
using test::PollWaiter;
using test::RedisServer;

constexpr std::int64_t kLater = 4102444800000;

class EchoTest : public testing::Test {
protected:
	EchoTest() : feed(server.endpoint(), "sess:", waiter) {
		feed.connect();
		while (feed.gap() != kGapNone || feed.comparing()) {
			feed.begin_comparison();
			while (feed.scan_step()) {
			}
			feed.end_comparison();
		}
	}
	void take_hints() {
		feed.start_barrier();
		while (!feed.barrier_passed())
			feed.wait(milliseconds{50});
	}
	// How many keys a fetch shows that are not echoes.
	std::size_t shown() {
		take_hints();
		return feed.fetch(kMaxFetch).size();
	}
	void push(const std::string &sid, Push push) {
		feed.mark(sid);
		ASSERT_EQ(feed.fetch(kMaxFetch).size(), 1U);
		PushResult result = PushResult::changed;
		std::string refusal;
		test::push(feed, {&push, 1}, {&result, 1}, &refusal);
		ASSERT_EQ(result, PushResult::done);
		feed.commit();
	}

	RedisServer server;
	PollWaiter waiter;
	Feed feed;
};

TEST_F(EchoTest, WhatIsStillThereNeedsNoLook) {
	push("value", {0, false, "v", kLater, true});
	push("no expiry", {0, false, "v", kNoExpiry, true});
	push("value", {0, true, {}, kNoExpiry, true});
	EXPECT_EQ(shown(), 0U);
	EXPECT_GE(feed.counters().echoes, 2U);
	EXPECT_EQ(feed.dirty() + feed.in_flight(), 0U);
	EXPECT_TRUE(feed.caught_up());
	server.run({"SET", "sess:value", "v"});
	EXPECT_EQ(shown(), 1U);
}

TEST_F(EchoTest, WhatOthersWroteAfterwardsIsShown) {
	for (const char *sid : {"value", "expiry", "type", "gone", "append"})
		push(sid, {0, false, "v", kLater, true});
	push("append", {0, true, {}, kNoExpiry, true});
	server.run({"SET", "sess:value", "w", "PXAT", std::to_string(kLater)});
	server.run({"PEXPIREAT", "sess:expiry", std::to_string(kLater + 1)});
	server.run({"DEL", "sess:type"});
	server.run({"HSET", "sess:type", "f", "v"});
	server.run({"DEL", "sess:gone"});
	server.run({"APPEND", "sess:append", "v"});
	EXPECT_EQ(shown(), 5U);
}

TEST_F(EchoTest, WhatWasReadInBetweenIsShown) {
	push("a", {0, false, "v", kLater, true});
	server.run({"SET", "sess:a", "w"});
	EXPECT_EQ(shown(), 1U);
	feed.commit();
	server.run({"SET", "sess:a", "v", "PXAT", std::to_string(kLater)});
	EXPECT_EQ(shown(), 1U) << "both sides have agreed on something else since";
}

TEST_F(EchoTest, WhoeverAsksForTheKeySeesIt) {
	push("marked", {0, false, "v", kLater, true});
	take_hints();
	feed.mark("marked");
	EXPECT_EQ(shown(), 1U);
	feed.commit();
	push("with more to do", {0, false, "v", kLater, false});
	EXPECT_EQ(shown(), 1U);
	feed.commit();
	push("compared", {0, false, "v", kLater, true});
	feed.begin_comparison();
	EXPECT_EQ(shown(), 0U);
	EXPECT_TRUE(feed.seen("compared"));
	EXPECT_FALSE(feed.seen("marked"));
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	EXPECT_EQ(shown(), 3U) << "what a comparison asks for";
}

TEST_F(EchoTest, AGapForgetsWhatWasPushed) {
	push("a", {0, false, "v", kLater, true});
	server.run({"FLUSHDB"});
	server.run({"SET", "sess:a", "v", "PXAT", std::to_string(kLater)});
	take_hints();
	feed.begin_comparison();
	while (feed.scan_step()) {
	}
	feed.end_comparison();
	EXPECT_EQ(shown(), 1U);
}

TEST_F(EchoTest, PushesInPartsGoOnWhileOthersAreRead) {
	std::vector<std::string> sids;
	for (int i = 0; i < 1000; i++)
		feed.mark(sids.emplace_back(std::to_string(i)));
	for (int i = 0; i < 500; i++)
		feed.mark("next " + std::to_string(i));
	ASSERT_EQ(feed.fetch(kMaxFetch).size(), 1000U);
	feed.prefetch(kMaxFetch);
	for (std::size_t from = 0; from < sids.size(); from += 100) {
		std::vector<Push> part;
		for (std::size_t i = from; i < from + 100; i++)
			part.push_back({i, false, sids[i], kLater, true});
		feed.start_push(part);
		if (from == 300 || from == 500)
			server.run({"SCRIPT", "FLUSH"});
		if (from == 700) {
			EXPECT_TRUE(feed.confirm());
		}
	}
	std::vector<PushResult> results(sids.size(), PushResult::changed);
	std::string refusal;
	feed.finish_pushes(results, &refusal);
	EXPECT_EQ(results, std::vector<PushResult>(sids.size(), PushResult::done));
	EXPECT_EQ(refusal, "");
	feed.commit();
	EXPECT_EQ(reply_text(*server.run({"GET", "sess:999"})), "999");
	EXPECT_EQ(shown(), 500U) << "what was read ahead";
	feed.commit();
	EXPECT_EQ(shown(), 0U);
	EXPECT_EQ(feed.counters().echoes, 1000U);
}

TEST_F(EchoTest, PushesThatNobodyWaitsForEndTheConnection) {
	feed.mark("a");
	feed.fetch(1);
	const Push one{0, false, "v", kLater, true};
	feed.start_push({&one, 1});
	feed.put_back_all();
	EXPECT_FALSE(feed.connected());
	EXPECT_EQ(feed.dirty(), 1U);
	feed.connect();
	EXPECT_EQ(feed.fetch(1).size(), 1U);
}

// Two sides that both write few different states, so that every state comes again and again. What
// the feed shows, and what this side pushes, must make them equal.
TEST_F(EchoTest, BothWaysConvergeWhateverComesAgain) {
	std::mt19937 random(7);
	const auto below = [&](unsigned n) { return random() % n; };
	using State = std::pair<std::string, std::int64_t>;
	const State absent{"-", 0};
	const auto some_state = [&] {
		return below(4) == 0 ? absent : State{below(2) == 0 ? "a" : "b", kLater + below(2)};
	};
	std::map<std::string, State> mine;
	std::map<std::string, std::set<State>> bases; // of what this side changed
	const auto of = [&](const std::string &sid) {
		return mine.try_emplace(sid, absent).first->second;
	};
	const auto write_redis = [&](unsigned n) {
		for (; n > 0; n--) {
			const std::string key = "sess:" + std::to_string(below(40));
			const State state = some_state();
			if (state == absent)
				server.run({"DEL", key});
			else
				server.run({"SET", key, state.first, "PXAT", std::to_string(state.second)});
		}
	};
	const auto write_mine = [&](unsigned n) {
		for (; n > 0; n--) {
			const std::string sid = std::to_string(below(40));
			bases[sid].insert(of(sid));
			mine[sid] = some_state();
			feed.mark(sid);
		}
	};
	const auto turn = [&] {
		const auto items = feed.fetch(1 + below(20));
		feed.prefetch(20);
		write_redis(below(2));
		std::vector<Push> pushes;
		std::vector<State> values(items.size());
		for (std::size_t i = 0; i < items.size(); i++) {
			const Item &item = items[i];
			const std::string sid(item.sid);
			const State state = item.kind == ItemKind::absent
				? absent
				: State{std::string(item.value), item.expire_ms};
			const auto base = bases.find(sid);
			values[i] = of(sid);
			if (base != bases.end() && base->second.count(state) > 0 && values[i] != state) {
				const bool remove = values[i] == absent;
				pushes.push_back({i, remove, remove ? std::string_view{} : values[i].first,
					remove ? kNoExpiry : values[i].second, true});
			} else {
				mine[sid] = state;
				bases.erase(sid);
			}
		}
		feed.start_push(std::span(pushes).first(pushes.size() / 2));
		write_redis(below(2));
		feed.start_push(std::span(pushes).subspan(pushes.size() / 2));
		std::vector<PushResult> results(pushes.size());
		std::string refusal;
		feed.finish_pushes(results, &refusal);
		for (std::size_t i = 0; i < pushes.size(); i++) {
			if (results[i] == PushResult::done)
				bases.erase(std::string(items[pushes[i].item].sid));
			else
				feed.put_back(pushes[i].item);
		}
		feed.commit();
	};
	for (int round = 0; round < 2000; round++) {
		write_redis(below(3));
		write_mine(below(3));
		if (below(2) == 0)
			take_hints();
		turn();
	}
	take_hints();
	while (feed.dirty() > 0) {
		turn();
		take_hints();
	}
	for (const auto &[sid, state] : mine) {
		const std::string key = "sess:" + sid;
		const ReplyPtr value = server.run({"GET", key});
		const std::int64_t expire = server.run({"PEXPIRETIME", key})->integer;
		EXPECT_EQ(state, is_nil(*value) ? absent : State(reply_text(*value), expire)) << sid;
	}
	EXPECT_GT(feed.counters().echoes, 100U);
}

} // namespace
} // namespace session_store::redis
