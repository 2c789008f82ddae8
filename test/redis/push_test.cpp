// Writing to Redis: compare and set in every way, against a real Redis.

#include <gtest/gtest.h>

#include <algorithm>
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

constexpr std::int64_t kLater = 4102444800000;

// What Redis holds of a key: "value@expiry", "-" when there is none.
std::string held(RedisServer &server, const std::string &key) {
	const ReplyPtr value = server.run({"GET", key});
	if (is_nil(*value))
		return "-";
	std::string text(reply_text(*value));
	const ReplyPtr ttl = server.run({"PTTL", key});
	if (ttl->integer < 0)
		return text;
	const ReplyPtr time = server.run({"TIME"});
	const std::int64_t at = ttl->integer + std::stoll(time->element[0]->str) * 1000 +
		std::stoll(time->element[1]->str) / 1000;
	return text + "@" + std::to_string((at + 50) / 100 * 100); // exact enough for old versions too
}

struct Way {
	const char *name;
	std::vector<std::string> refused; // commands that this Redis does not have
};

bool has(const std::vector<std::string> &commands, const char *command) {
	return std::find(commands.begin(), commands.end(), command) != commands.end();
}

std::ostream &operator<<(std::ostream &out, const Way &way) {
	return out << way.name;
}

const Way kWays[] = {
	{"by digest", {}},
	{"by text", {"SCRIPT"}},
	{"by watch", {"EVAL", "EVALSHA", "SCRIPT"}},
	{"by digest, old", {"PEXPIRETIME"}},
	{"by text, old", {"SCRIPT", "PEXPIRETIME"}},
	{"by watch, old", {"EVAL", "EVALSHA", "SCRIPT", "PEXPIRETIME"}},
};

std::vector<std::string> options_of(const Way &way) {
	std::vector<std::string> options;
	for (const std::string &command : way.refused)
		options.insert(options.end(), {"--rename-command", command, ""});
	return options;
}

class PushTest : public testing::TestWithParam<Way> {
protected:
	PushTest() : server(options_of(GetParam())), feed(server.endpoint(), "sess:", waiter) {
		feed.connect();
	}
	// Reads these sids; the items are in this order.
	std::span<const Item> fetch(const std::vector<std::string> &sids) {
		for (const std::string &sid : sids)
			feed.mark(sid);
		return feed.fetch(kMaxFetch);
	}
	std::vector<PushResult> push(const std::vector<Push> &pushes) {
		std::vector<PushResult> results(pushes.size());
		refusal.clear();
		test::push(feed, pushes, results, &refusal);
		return results;
	}

	RedisServer server;
	PollWaiter waiter;
	Feed feed;
	std::string refusal;
};

TEST_P(PushTest, WritesWhatIsAsReadAndNothingElse) {
	server.run({"SET", "sess:same", "old"});
	server.run({"SET", "sess:moved", "old"});
	server.run({"SET", "sess:touched", "old"});
	server.run({"SET", "sess:removed", "old", "PXAT", std::to_string(kLater)});
	server.run({"SET", "sess:gone", "old"});
	server.run({"SET", "sess:retyped", "old"});
	const auto items = fetch({"same", "moved", "touched", "removed", "gone", "retyped", "new",
		"new with expiry", "appeared", "nothing"});
	ASSERT_EQ(items.size(), 10U);
	server.run({"SET", "sess:moved", "other"});
	server.run({"PEXPIREAT", "sess:touched", std::to_string(kLater)});
	server.run({"DEL", "sess:gone"});
	server.run({"DEL", "sess:retyped"});
	server.run({"HSET", "sess:retyped", "f", "v"});
	server.run({"SET", "sess:appeared", "there"});
	const std::string binary("a\0\xFF\r\n", 5);
	const auto results = push({{0, false, binary, kLater}, {1, false, "mine", kNoExpiry},
		{2, false, "mine", kLater + 5000}, {3, true, {}, kNoExpiry}, {4, false, "mine", kNoExpiry},
		{5, true, {}, kNoExpiry}, {6, false, "n", kNoExpiry}, {7, false, "n", kLater},
		{8, false, "mine", kNoExpiry}, {9, true, {}, kNoExpiry}});
	EXPECT_EQ(results,
		(std::vector<PushResult>{PushResult::done, PushResult::changed, PushResult::changed,
			PushResult::done, PushResult::changed, PushResult::changed, PushResult::done,
			PushResult::done, PushResult::changed, PushResult::done}));
	EXPECT_EQ(refusal, "");
	const std::string later = "@" + std::to_string(kLater);
	EXPECT_EQ(held(server, "sess:same"), binary + later);
	EXPECT_EQ(held(server, "sess:moved"), "other");
	EXPECT_EQ(held(server, "sess:touched"), "old" + later);
	EXPECT_EQ(held(server, "sess:removed"), "-");
	EXPECT_EQ(held(server, "sess:gone"), "-");
	EXPECT_EQ(reply_text(*server.run({"TYPE", "sess:retyped"})), "hash");
	EXPECT_EQ(held(server, "sess:new"), "n");
	EXPECT_EQ(held(server, "sess:new with expiry"), "n" + later);
	EXPECT_EQ(held(server, "sess:appeared"), "there");
}

TEST_P(PushTest, MovesTheExpiryAlone) {
	server.run({"SET", "sess:a", "va"});
	server.run({"SET", "sess:b", "vb", "PXAT", std::to_string(kLater)});
	server.run({"SET", "sess:c", "vc", "PXAT", std::to_string(kLater)});
	server.run({"SET", "sess:d", "vd"});
	const auto items = fetch({"a", "b", "c", "d"});
	const auto results =
		push({{0, false, items[0].value, kLater}, {1, false, items[1].value, kNoExpiry},
			{2, false, items[2].value, kLater + 5000}, {3, false, items[3].value, 1000}});
	EXPECT_EQ(results, std::vector<PushResult>(4, PushResult::done));
	EXPECT_EQ(held(server, "sess:a"), "va@" + std::to_string(kLater));
	EXPECT_EQ(held(server, "sess:b"), "vb");
	EXPECT_EQ(held(server, "sess:c"), "vc@" + std::to_string(kLater + 5000));
	EXPECT_EQ(held(server, "sess:d"), "-") << "an expiry that is over means remove";
}

// What a push leaves as it is may have changed since, and that is kept. Before Redis 7 the expiry
// has to be as it was.
TEST_P(PushTest, WhatStaysIsNotCompared) {
	for (const char *sid : {"touched", "written", "written and removed", "ended"})
		server.run({"SET", std::string("sess:") + sid, "old", "PXAT", std::to_string(kLater)});
	const auto items = fetch({"touched", "written", "written and removed", "ended"});
	ASSERT_EQ(items.size(), 4U);
	server.run({"PERSIST", "sess:touched"});
	server.run({"SET", "sess:written", "other", "KEEPTTL"});
	server.run({"SET", "sess:written and removed", "other", "KEEPTTL"});
	server.run({"DEL", "sess:ended"});
	const bool is_old = has(GetParam().refused, "PEXPIRETIME");
	EXPECT_EQ(push({{0, false, "mine", kLater}, {1, false, items[1].value, kLater + 5000},
				  {2, true, {}, kNoExpiry}, {3, false, items[3].value, kLater + 5000}}),
		(std::vector<PushResult>{is_old ? PushResult::changed : PushResult::done, PushResult::done,
			PushResult::changed, PushResult::changed}));
	EXPECT_EQ(held(server, "sess:touched"), is_old ? "old" : "mine");
	EXPECT_EQ(held(server, "sess:written"), "other@" + std::to_string(kLater + 5000));
	EXPECT_EQ(held(server, "sess:written and removed"), "other@" + std::to_string(kLater));
	EXPECT_EQ(held(server, "sess:ended"), "-");
}

TEST_P(PushTest, WhatIsPushedTwiceIsWrittenOnce) {
	const auto items = fetch({"a"});
	ASSERT_EQ(items[0].kind, ItemKind::absent);
	EXPECT_EQ(push({{0, false, "1", kNoExpiry}})[0], PushResult::done);
	EXPECT_EQ(push({{0, false, "2", kNoExpiry}})[0], PushResult::changed);
	EXPECT_EQ(held(server, "sess:a"), "1");
}

TEST_P(PushTest, RefusesToWriteOverWhatIsNoString) {
	server.run({"HSET", "sess:h", "f", "v"});
	fetch({"h"});
	EXPECT_EQ(push({{0, false, "1", kNoExpiry}, {1, false, "1", kNoExpiry}}),
		(std::vector<PushResult>{PushResult::refused, PushResult::refused}));
	EXPECT_EQ(refusal, "WRONGTYPE");
	EXPECT_EQ(reply_text(*server.run({"TYPE", "sess:h"})), "hash");
}

TEST_P(PushTest, ManyAndLargeOnesAreBounded) {
	std::vector<std::string> sids;
	for (int i = 0; i < 200; i++)
		sids.push_back(std::to_string(i));
	fetch(sids);
	const std::string large(3'000'000, 'x');
	std::vector<Push> pushes;
	for (std::size_t i = 0; i < sids.size(); i++)
		pushes.push_back({i, false, i % 20 == 0 ? std::string_view(large) : "small", kLater});
	EXPECT_EQ(push(pushes), std::vector<PushResult>(sids.size(), PushResult::done));
	EXPECT_EQ(server.run({"STRLEN", "sess:20"})->integer, 3'000'000);
	EXPECT_EQ(held(server, "sess:199"), "small@" + std::to_string(kLater));
}

TEST_P(PushTest, AFullRedisRefusesAndTheConnectionStays) {
	server.run({"SET", "sess:there", "old"});
	fetch({"new", "there"});
	server.run({"CONFIG", "SET", "maxmemory", "1"});
	const auto results = push({{0, false, "v", kNoExpiry}, {1, false, "v", kNoExpiry}});
	EXPECT_EQ(results, std::vector<PushResult>(2, PushResult::refused));
	EXPECT_EQ(refusal, "OOM");
	EXPECT_TRUE(feed.connected());
	std::string other;
	try {
		feed.lease("me", milliseconds{1000}, &other);
		FAIL() << "no error";
	} catch (const Error &error) {
		EXPECT_EQ(error.kind(), ErrorKind::refused) << error.what();
	}
	EXPECT_TRUE(feed.connected());
	server.run({"CONFIG", "SET", "maxmemory", "0"});
	EXPECT_EQ(push({{0, false, "v", kNoExpiry}})[0], PushResult::done);
}

TEST_P(PushTest, RightsThatAreMissingAreNamed) {
	server.run({"ACL", "SETUSER", "reader", "on", ">pw", "allchannels", "%R~sess:*", "+@all"});
	Endpoint endpoint = server.endpoint();
	endpoint.username = "reader";
	endpoint.password = "pw";
	Feed limited(endpoint, "sess:", waiter);
	limited.connect();
	limited.mark("a");
	limited.fetch(1);
	const Push one{0, false, "v", kNoExpiry};
	PushResult result = PushResult::done;
	test::push(limited, {&one, 1}, {&result, 1}, &refusal);
	EXPECT_EQ(result, PushResult::refused);
	EXPECT_EQ(refusal, "NOPERM");
	EXPECT_TRUE(limited.connected());
	EXPECT_EQ(held(server, "sess:a"), "-");
}

TEST_P(PushTest, AScriptThatRedisForgotIsLoadedAgain) {
	fetch({"a", "b"});
	EXPECT_EQ(push({{0, false, "1", kNoExpiry}})[0], PushResult::done);
	server.run({"SCRIPT", "FLUSH"});
	EXPECT_EQ(push({{1, false, "1", kNoExpiry}})[0], PushResult::done);
}

TEST_P(PushTest, OneThatIsNotFinishedEndsTheConnectionAndLosesNothing) {
	fetch({"a"});
	const std::string value = "1";
	const Push one{0, false, value, kNoExpiry};
	feed.start_push({&one, 1});
	EXPECT_THROW(feed.fetch(kMaxFetch), Error);
	EXPECT_FALSE(feed.connected());
	feed.connect();
	const auto items = feed.fetch(kMaxFetch);
	ASSERT_EQ(items.size(), 1U);
	EXPECT_EQ(items[0].sid, "a");
}

TEST_P(PushTest, TheLeaseIsHeldByOne) {
	Feed second(server.endpoint(), "sess:", waiter);
	second.connect();
	std::string other;
	EXPECT_TRUE(feed.lease("first", milliseconds{60'000}, &other));
	EXPECT_FALSE(second.lease("second", milliseconds{60'000}, &other));
	EXPECT_EQ(other, "first");
	EXPECT_TRUE(feed.lease("first", milliseconds{90'000}, &other));
	EXPECT_GT(server.run({"PTTL", "session_store:lease:0:sess:"})->integer, 60'000);
	second.release_lease("second");
	EXPECT_FALSE(second.lease("second", milliseconds{60'000}, &other));
	feed.release_lease("first");
	EXPECT_TRUE(second.lease("second", milliseconds{60'000}, &other));
	server.run({"PEXPIRE", "session_store:lease:0:sess:", "1"});
	while (is_string(*server.run({"GET", "session_store:lease:0:sess:"}))) {
	}
	EXPECT_TRUE(feed.lease("first", milliseconds{60'000}, &other));
}

TEST_P(PushTest, TheLeaseIsNeverMirrored) {
	Feed all(server.endpoint(), "", waiter);
	all.connect();
	std::string other;
	EXPECT_TRUE(all.lease("me", milliseconds{60'000}, &other));
	server.run({"SET", "a", "1"});
	all.start_barrier();
	while (!all.barrier_passed())
		all.wait(milliseconds{50});
	EXPECT_EQ(all.dirty(), 1U);
	all.begin_comparison();
	while (all.scan_step()) {
	}
	all.mark("session_store:lease:0:");
	all.end_comparison();
	EXPECT_EQ(all.dirty(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Ways, PushTest, testing::ValuesIn(kWays), [](const auto &one) {
	std::string name(one.param.name);
	std::erase_if(name, [](char c) { return c == ' ' || c == ','; });
	return name;
});

// A key that others write between the look and the EXEC of the watching way.
TEST(Push, AWatchThatFailsWritesNothing) {
	test::FakeServer fake;
	for (const char *name : {"SCRIPT", "EVAL", "EVALSHA"})
		for (int i = 0; i < 5; i++)
			fake.script(name, i, {"-NOPERM this user has no permissions\r\n"});
	FeedLimits limits;
	limits.ping_interval = limits.poll_interval = std::chrono::hours{1};
	Feed feed(fake.endpoint(), "sess:", fake, limits);
	feed.connect();
	feed.mark("a");
	feed.fetch(1);
	fake.script("EXEC", 1, {"*-1\r\n"});
	const Push one{0, false, "v", kNoExpiry};
	PushResult result = PushResult::done;
	std::string refusal;
	test::push(feed, {&one, 1}, {&result, 1}, &refusal);
	EXPECT_EQ(result, PushResult::changed);
	EXPECT_EQ(refusal, "");
}

TEST(Confirm, KnowsAFlushAndASwapAtOnce) {
	RedisServer server;
	PollWaiter waiter;
	FeedLimits limits;
	limits.poll_interval = limits.ping_interval = std::chrono::hours{1};
	Feed feed(server.endpoint(), "sess:", waiter, limits);
	feed.connect();
	EXPECT_TRUE(feed.confirm());
	server.run({"SET", "sess:a", "1"});
	EXPECT_TRUE(feed.confirm());
	EXPECT_EQ(feed.dirty(), 1U) << "hints are taken in meanwhile";
	server.run({"FLUSHDB"});
	EXPECT_FALSE(feed.confirm());
	EXPECT_NE(feed.gap() & kGapFlushed, 0U);
	feed.begin_comparison();
	EXPECT_TRUE(feed.confirm()) << "that gap is being answered";
	EXPECT_NE(feed.answering() & kGapBreaksContinuity, 0U);
	server.run({"SWAPDB", "0", "1"});
	EXPECT_FALSE(feed.confirm());
	feed.begin_comparison();
	server.run({"CONFIG", "RESETSTAT"});
	EXPECT_TRUE(feed.confirm());
	server.run({"SWAPDB", "0", "1"});
	EXPECT_FALSE(feed.confirm()) << "counted from 0 since the statistics were reset";
}

TEST(Confirm, ARestartIsAnErrorAndThenAGap) {
	RedisServer server;
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	feed.connect();
	server.stop();
	server.start();
	EXPECT_THROW(feed.confirm(), Error);
	feed.connect();
	EXPECT_NE(feed.gap() & kGapIdentity, 0U);
}

TEST(Identity, OutlivesTheProcess) {
	RedisServer server;
	PollWaiter waiter;
	Identity last;
	{
		Feed feed(server.endpoint(), "sess:", waiter);
		EXPECT_TRUE(feed.identity().run_id.empty());
		feed.connect();
		last = feed.identity();
		EXPECT_EQ(last.run_id.size(), 40U);
	}
	const auto gap = [&] {
		Feed feed(server.endpoint(), "sess:", waiter);
		feed.assume(last);
		feed.connect();
		last = feed.identity();
		return feed.gap();
	};
	EXPECT_EQ(gap(), unsigned{kGapConnected});
	server.run({"FLUSHALL"});
	EXPECT_EQ(gap(), unsigned{kGapConnected | kGapFlushed});
	EXPECT_EQ(gap(), unsigned{kGapConnected});
	server.stop();
	server.start();
	EXPECT_EQ(gap(), unsigned{kGapConnected | kGapIdentity});
}

TEST(Clock, TheDifferenceIsMeasured) {
	RedisServer server;
	PollWaiter waiter;
	Feed feed(server.endpoint(), "sess:", waiter);
	EXPECT_FALSE(feed.clock_difference().has_value());
	feed.connect();
	ASSERT_TRUE(feed.clock_difference().has_value());
	EXPECT_LT(std::abs(feed.clock_difference()->count()), 100'000);
}

TEST(Clock, BelievesTheQuickestAnswerAndNoNonsense) {
	test::FakeServer fake;
	fake.script("TIME", 0, {"*2\r\n$10\r\n1700000000\r\n$6\r\n250000\r\n"});
	fake.script("TIME", 1, {"-ERR no\r\n"});
	Feed feed(fake.endpoint(), "sess:", fake);
	feed.connect();
	ASSERT_TRUE(feed.clock_difference().has_value());
	const auto now = std::chrono::system_clock::now().time_since_epoch();
	const auto then = std::chrono::microseconds{1'700'000'000'250'000};
	EXPECT_LT(std::chrono::abs(now + *feed.clock_difference() - then), std::chrono::seconds{5});
	for (const char *bad : {"*2\r\n$1\r\nx\r\n$1\r\n0\r\n", "*1\r\n$1\r\n1\r\n", ":5\r\n",
			 "*2\r\n$20\r\n99999999999999999999\r\n$1\r\n0\r\n", "*2\r\n$2\r\n-1\r\n$1\r\n0\r\n"}) {
		test::FakeServer other;
		other.script("TIME", 0, {bad});
		Feed refused(other.endpoint(), "sess:", other);
		EXPECT_THROW(refused.connect(), Error) << bad;
	}
}

} // namespace
} // namespace session_store::redis
