// The feed against every wrong answer at every step: it throws or says error, never a false
// absence.

#include <gtest/gtest.h>

#include <string>

#include "redis/feed.h"
#include "support/fake_server.h"

namespace session_store::redis {
namespace {

using std::chrono::milliseconds;
using test::Answer;
using test::bulk;
using test::FakeServer;

const Answer kHostile[] = {
	{"-ERR no\r\n"},
	{"-LOADING Redis is loading the dataset in memory\r\n"},
	{"-NOPERM this user has no permissions\r\n"},
	{"-MOVED 1 127.0.0.1:1\r\n"},
	{"$-1\r\n"},
	{"*-1\r\n"},
	{"*0\r\n"},
	{"*1\r\n$-1\r\n"},
	{":-5\r\n"},
	{"+what\r\n"},
	{"$0\r\n\r\n"},
	{"*3\r\n*0\r\n:1\r\n$-1\r\n"},
	{"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n:1\r\n"},
	{"!garbage\r\n"},
	{"%1\r\n+a\r\n+b\r\n"}, // RESP3, which hiredis 1.x would parse
	{">2\r\n+message\r\n+a\r\n"},
	{"*2147483647\r\n"},
	{"$99999999999\r\nabc"},
	{"$10\r\nabc", true},
	{"", true},
	{""},
};

FeedLimits patient() {
	FeedLimits limits;
	limits.ping_interval = std::chrono::hours{1};
	limits.poll_interval = std::chrono::hours{1};
	return limits;
}

// Connects, scans, and fetches; returns false when that threw.
bool whole_turn(Feed &feed, FakeServer &server) {
	bool complete = true;
	try {
		feed.connect();
		feed.begin_comparison();
		while (feed.scan_step()) {
		}
		feed.end_comparison();
		feed.mark("gone");
		for (const Item &item : feed.fetch(kMaxFetch)) {
			if (item.kind == ItemKind::absent) {
				EXPECT_EQ(server.values.count(std::string(item.key)), 0U);
			}
			if (item.kind == ItemKind::value) {
				EXPECT_EQ(server.values.count(std::string(item.key)), 1U);
			}
			complete = complete && item.kind != ItemKind::error;
		}
		feed.commit();
	} catch (const Error &) {
		EXPECT_FALSE(feed.connected());
		EXPECT_EQ(feed.in_flight(), 0U);
		complete = false;
	}
	return complete;
}

TEST(HostileFeed, AHealthyTurnWorks) {
	FakeServer server;
	server.values = {{"sess:a", "1"}, {"sess:b", std::string("\0\xFF", 2)}};
	Feed feed(server.endpoint(), "sess:", server, patient());
	EXPECT_TRUE(whole_turn(feed, server));
	EXPECT_EQ(feed.counters().fetched, 3U);
}

TEST(HostileFeed, NoAnswerAtAnyStepMakesAFalseAbsence) {
	FakeServer model;
	model.values = {{"sess:a", "1"}, {"sess:b", "2"}};
	Feed dry_run(model.endpoint(), "sess:", model, patient());
	ASSERT_TRUE(whole_turn(dry_run, model));
	std::map<std::string, int> counts;
	int failures = 0;
	for (const std::string &command : model.log) {
		const int n = counts[command]++;
		for (const Answer &answer : kHostile) {
			FakeServer server;
			server.values = model.values;
			server.script(command, n, answer);
			Feed feed(server.endpoint(), "sess:", server, patient());
			SCOPED_TRACE(command + " " + std::to_string(n) + ": " + answer.bytes);
			failures += whole_turn(feed, server) ? 0 : 1;
			// Whatever it was, the next turn, with the server healthy again, works.
			EXPECT_TRUE(whole_turn(feed, server));
		}
	}
	EXPECT_GT(failures, 100);
}

TEST(HostileFeed, AnErrorInsideExecIsAnErrorOfThatKeyOnly) {
	FakeServer server;
	server.script("EXEC", 0, {"*4\r\n$1\r\n1\r\n:-1\r\n$0\r\n\r\n-ERR no\r\n"});
	Feed feed(server.endpoint(), "sess:", server, patient());
	feed.connect();
	feed.mark("a");
	feed.mark("b");
	const auto items = feed.fetch(2);
	ASSERT_EQ(items.size(), 2U);
	EXPECT_EQ(items[0].kind, ItemKind::value);
	EXPECT_EQ(items[1].kind, ItemKind::error);
}

TEST(HostileFeed, AnExecThatWasAbortedIsReadAgain) {
	FakeServer server;
	server.values = {{"sess:a", "1"}};
	server.script("EXEC", 0, {"*-1\r\n"});
	Feed feed(server.endpoint(), "sess:", server, patient());
	feed.connect();
	feed.mark("a");
	EXPECT_EQ(feed.fetch(1)[0].kind, ItemKind::error);
	EXPECT_EQ(feed.fetch(1)[0].kind, ItemKind::value);
}

// What one EXEC says of a key, and what that makes of it.
TEST(HostileFeed, OnlyNothingWithoutAKeyIsAbsence) {
	const struct {
		const char *exec;
		const char *type;
		ItemKind kind;
	} cases[] = {
		{"$0\r\n\r\n:-2\r\n", "none", ItemKind::absent},
		{"$-1\r\n:-2\r\n", "none", ItemKind::absent},
		{"$0\r\n\r\n:-1\r\n", "string", ItemKind::value},
		{"$0\r\n\r\n:4102444800000\r\n", "string", ItemKind::value},
		{"$-1\r\n:-1\r\n", "hash", ItemKind::other_type},
		{"-WRONGTYPE no\r\n:4102444800000\r\n", "hash", ItemKind::other_type},
		{"-WRONGTYPE no\r\n:-1\r\n", "none", ItemKind::error}, // it changed meanwhile
		{"-WRONGTYPE no\r\n:-1\r\n", "string", ItemKind::error},
		{"-WRONGTYPE no\r\n:-2\r\n", "hash", ItemKind::error},
		{"-ERR no\r\n:-2\r\n", "none", ItemKind::error},
		{"-NOPERM no\r\n:-1\r\n", "none", ItemKind::error},
		{"$1\r\n1\r\n:-2\r\n", "none", ItemKind::error}, // a value of a key that is not there
		{"$0\r\n\r\n:-3\r\n", "none", ItemKind::error},
		{"$0\r\n\r\n$2\r\n-2\r\n", "none", ItemKind::error},
		{"$0\r\n\r\n-ERR no\r\n", "none", ItemKind::error},
		{"$0\r\n\r\n$-1\r\n", "none", ItemKind::error},
		{":0\r\n:-2\r\n", "none", ItemKind::error},
		{"*0\r\n:-2\r\n", "none", ItemKind::error},
		{"+\r\n:-2\r\n", "none", ItemKind::error},
	};
	for (const auto &one : cases) {
		FakeServer server;
		server.script("EXEC", 0, {std::string("*2\r\n") + one.exec});
		server.script("TYPE", 0, {std::string("+") + one.type + "\r\n"});
		Feed feed(server.endpoint(), "sess:", server, patient());
		feed.connect();
		feed.mark("a");
		EXPECT_EQ(feed.fetch(1)[0].kind, one.kind) << one.exec << one.type;
	}
}

// The same of a value that is too long to be read at once.
TEST(HostileFeed, ALongValueThatChangesMeanwhileIsNoFalseAbsence) {
	const struct {
		const char *exec;
		ItemKind kind;
	} cases[] = {
		{"*1\r\n$-1\r\n:-2\r\n", ItemKind::absent},
		{"*1\r\n$0\r\n\r\n:-2\r\n", ItemKind::error},
		{"*1\r\n$-1\r\n:-1\r\n", ItemKind::error}, // TYPE says string
		{"*1\r\n$1\r\n1\r\n:-1\r\n", ItemKind::value},
		{"-ERR no\r\n:-2\r\n", ItemKind::error},
	};
	for (const auto &one : cases) {
		FakeServer server;
		server.values = {{"sess:a", "a long value"}};
		server.script("EXEC", 1, {std::string("*2\r\n") + one.exec});
		FeedLimits limits = patient();
		limits.small_bytes = 4;
		Feed feed(server.endpoint(), "sess:", server, limits);
		feed.connect();
		feed.mark("a");
		EXPECT_EQ(feed.fetch(1)[0].kind, one.kind) << one.exec;
	}
}

TEST(HostileFeed, WaitsForARedisThatIsNotReady) {
	for (const char *line :
		{"loading:1\r\n", "async_loading:1\r\n", "role:slave\r\nmaster_link_status:down\r\n",
			"role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:1\r\n"}) {
		FakeServer server;
		server.info += line;
		Feed feed(server.endpoint(), "sess:", server, patient());
		EXPECT_THROW(feed.connect(), Error) << line;
		EXPECT_FALSE(feed.connected());
	}
}

TEST(HostileFeed, NoticesAnotherServerBehindTheSameAddress) {
	FakeServer server;
	server.script("INFO", 0, {bulk("run_id:another\r\n")});
	Feed feed(server.endpoint(), "sess:", server, patient());
	EXPECT_THROW(feed.connect(), Error);
	EXPECT_NO_THROW(feed.connect());
}

TEST(HostileFeed, PollingNoticesWhatChanged) {
	const struct {
		const char *line;
		unsigned gap; // 0: the connection is given up
	} cases[] = {{"master_replid:m2\r\n", kGapIdentity},
		{"cmdstat_swapdb:calls=1,usec=1\r\n", kGapSwapped}, {"run_id:r2\r\n", 0},
		{"role:slave\r\n", 0}, {"loading:1\r\n", 0}};
	for (const auto &one : cases) {
		FakeServer server;
		FeedLimits limits = patient();
		limits.poll_interval = milliseconds{0};
		Feed feed(server.endpoint(), "sess:", server, limits);
		feed.connect();
		feed.begin_comparison();
		server.info += one.line;
		if (one.gap == 0) {
			EXPECT_THROW(feed.wait(milliseconds{0}), Error) << one.line;
		} else {
			feed.wait(milliseconds{0});
			EXPECT_EQ(feed.gap(), one.gap) << one.line;
		}
	}
}

TEST(HostileFeed, TrackingThatIsNotSelfRedirectedIsRefused) {
	for (const std::string &flags :
		{"*1\r\n" + bulk("off"), "*3\r\n" + bulk("on") + bulk("bcast") + bulk("broken_redirect")}) {
		FakeServer server;
		server.script("CLIENT TRACKINGINFO", 0,
			{"*4\r\n" + bulk("flags") + flags + bulk("redirect") + ":7\r\n"});
		Feed feed(server.endpoint(), "sess:", server, patient());
		EXPECT_THROW(feed.connect(), Error);
	}
}

TEST(HostileFeed, HintsBeforeTheAcknowledgementCount) {
	FakeServer server;
	server.script("SUBSCRIBE", 0,
		{"*3\r\n" + bulk("message") + bulk("__redis__:invalidate") + "*1\r\n" + bulk("sess:x") +
			"*3\r\n" + bulk("subscribe") + bulk("__redis__:invalidate") + ":1\r\n"});
	Feed feed(server.endpoint(), "sess:", server, patient());
	feed.connect();
	EXPECT_EQ(feed.dirty(), 1U);
}

TEST(HostileFeed, EveryInterruptionIsPromptAndLeavesNothingBehind) {
	FakeServer model;
	model.values = {{"sess:a", "1"}};
	Feed dry_run(model.endpoint(), "sess:", model, patient());
	ASSERT_TRUE(whole_turn(dry_run, model));
	for (int at = 1; at <= model.waits; at++) {
		FakeServer server;
		server.values = model.values;
		server.interrupt_at = at;
		Feed feed(server.endpoint(), "sess:", server, patient());
		try {
			feed.connect();
			feed.mark("a");
			feed.fetch(1);
			feed.commit();
			Wake wake = Wake::timeout;
			for (int i = 0; i < at && wake != Wake::interrupted; i++)
				wake = feed.wait(milliseconds{1000});
			EXPECT_EQ(wake, Wake::interrupted);
			EXPECT_TRUE(feed.connected());
		} catch (const Error &error) {
			EXPECT_EQ(error.kind(), ErrorKind::interrupted) << error.what();
			EXPECT_FALSE(feed.connected());
			EXPECT_EQ(feed.in_flight(), 0U);
		}
		EXPECT_LE(server.waits, at) << "it went on waiting";
	}
}

TEST(HostileFeed, ABarrierTakesTwoPings) {
	FakeServer server;
	Feed feed(server.endpoint(), "sess:", server, patient());
	feed.connect();
	const auto pings = [&] { return std::count(server.log.begin(), server.log.end(), "PING"); };
	const auto before = pings();
	feed.start_barrier();
	EXPECT_FALSE(feed.barrier_passed());
	for (int i = 0; i < 100 && !feed.barrier_passed(); i++)
		feed.wait(milliseconds{10});
	EXPECT_TRUE(feed.barrier_passed());
	EXPECT_EQ(pings() - before, 2);
	feed.disconnect();
	EXPECT_FALSE(feed.barrier_passed());
}

} // namespace
} // namespace session_store::redis
