// Connecting, logging in, replies, and what their errors may say.

#include <gtest/gtest.h>

#include <string>

#include "redis/connection.h"
#include "support/fake_server.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using test::FakeServer;
using test::PollWaiter;
using test::RedisServer;
using namespace std::string_view_literals;

// The kind of Error that fn throws; its text goes to *text.
template <typename Fn>
ErrorKind error_of(Fn &&fn, std::string *text = nullptr) {
	try {
		fn();
	} catch (const Error &error) {
		if (text != nullptr)
			*text = error.what();
		return error.kind();
	}
	ADD_FAILURE() << "nothing was thrown";
	return ErrorKind::unsupported;
}

TEST(Connection, CarriesAnyBytesBothWays) {
	RedisServer server;
	PollWaiter waiter;
	Connection connection(server.endpoint(), waiter);
	std::string value;
	for (int i = 0; i < 100'000; i++)
		value += static_cast<char>(i * 7);
	connection.command_ok({"SET", "k\0\r\n\xFF"sv, value}, "SET", Show::text);
	EXPECT_EQ(reply_text(*connection.command({"GET", "k\0\r\n\xFF"sv})), value);
	EXPECT_TRUE(is_nil(*connection.command({"GET", "k"})));
	EXPECT_TRUE(is_error(*connection.command({"LPUSH", "k\0\r\n\xFF"sv, "x"})));
}

TEST(Connection, PipelinesAndPolls) {
	RedisServer server;
	PollWaiter waiter;
	Connection connection(server.endpoint(), waiter);
	for (int i = 0; i < 5000; i++)
		connection.append({"ECHO", std::to_string(i)});
	for (int i = 0; i < 5000; i++)
		ASSERT_EQ(reply_text(*connection.read_reply()), std::to_string(i));
	EXPECT_EQ(connection.poll_reply(), nullptr);
}

TEST(Connection, ConnectsOverTcpToo) {
	const int port = test::free_port();
	RedisServer server({"--port", std::to_string(port), "--bind", "127.0.0.1"});
	PollWaiter waiter;
	Endpoint endpoint;
	endpoint.port = port;
	for (const char *host : {"localhost", "127.0.0.1"}) {
		endpoint.host = host;
		Connection connection(endpoint, waiter);
		EXPECT_EQ(reply_text(*connection.command({"PING"})), "PONG");
	}
}

TEST(Connection, SaysThatNobodyIsThere) {
	PollWaiter waiter;
	Endpoint endpoint;
	endpoint.port = test::free_port();
	std::string text;
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }, &text), ErrorKind::connect);
	EXPECT_NE(text.find("localhost:"), std::string::npos) << text;
	endpoint.path = "/nonexistent/redis.sock";
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }), ErrorKind::connect);
	endpoint.path = "/" + std::string(200, 'x');
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }), ErrorKind::connect);
	endpoint.path.clear();
	endpoint.host = "no such host.invalid";
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }), ErrorKind::connect);
}

TEST(Connection, RefusesTlsThatItDoesNotHave) {
	PollWaiter waiter;
	Endpoint endpoint;
	endpoint.tls = true;
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }), ErrorKind::unsupported);
}

TEST(Connection, LogsInAndNeverShowsThePassword) {
	RedisServer server;
	server.run({"ACL", "SETUSER", "mirror", "on", ">let-me-in", "~*", "&*", "+@all"});
	server.run({"CONFIG", "SET", "requirepass", "open-sesame"});
	PollWaiter waiter;
	Endpoint endpoint = server.endpoint();
	std::string text;
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }, &text), ErrorKind::auth);
	endpoint.password = "wrong-secret";
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }, &text), ErrorKind::auth);
	EXPECT_EQ(text.find("wrong-secret"), std::string::npos) << text;
	EXPECT_EQ(endpoint.describe().find("wrong-secret"), std::string::npos);
	endpoint.password = "open-sesame";
	EXPECT_TRUE(Connection(endpoint, waiter).alive());
	endpoint.username = "mirror";
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }, &text), ErrorKind::auth);
	endpoint.password = "let-me-in";
	EXPECT_TRUE(Connection(endpoint, waiter).alive());
}

TEST(Connection, NeverShowsThePasswordThatAServerRepeats) {
	FakeServer server;
	server.script("AUTH", 0, {"-ERR unknown command 'AUTH', with args 'hush-hush'\r\n"});
	Endpoint endpoint = server.endpoint();
	endpoint.password = "hush-hush";
	std::string text;
	EXPECT_EQ(error_of([&] { Connection(endpoint, server); }, &text), ErrorKind::auth);
	EXPECT_EQ(text.find("hush"), std::string::npos) << text;
}

TEST(Connection, SelectsTheDatabase) {
	RedisServer server;
	PollWaiter waiter;
	Endpoint endpoint = server.endpoint();
	endpoint.database = 3;
	Connection connection(endpoint, waiter);
	connection.command({"SET", "k", "three"});
	EXPECT_TRUE(is_nil(*server.run({"GET", "k"})));
	endpoint.database = 99;
	EXPECT_EQ(error_of([&] { Connection(endpoint, waiter); }), ErrorKind::server);
}

TEST(Connection, IsDeadAfterAnError) {
	RedisServer server;
	PollWaiter waiter;
	Connection connection(server.endpoint(), waiter);
	server.stop();
	EXPECT_EQ(error_of([&] { connection.command({"PING"}); }), ErrorKind::closed);
	EXPECT_FALSE(connection.alive());
	EXPECT_EQ(error_of([&] { connection.command({"PING"}); }), ErrorKind::closed);
	EXPECT_EQ(error_of([&] { connection.poll_reply(); }), ErrorKind::closed);
}

struct Hostile {
	const char *name;
	test::Answer answer;
	ErrorKind kind;
	std::size_t limit = std::size_t{2} << 20;
};

TEST(Connection, SurvivesEveryHostileReply) {
	const Hostile cases[] = {
		{"not RESP", {"!!!garbage\r\n"}, ErrorKind::protocol},
		{"hang-up", {"", true}, ErrorKind::closed},
		{"hang-up in a bulk", {"$100\r\nabc", true}, ErrorKind::closed},
		{"hang-up in an array", {"*3\r\n$1\r\na\r\n", true}, ErrorKind::closed},
		{"huge array", {"*2147483647\r\n"}, ErrorKind::protocol},
		{"huge nested array", {"*1\r\n*1\r\n*1000000000\r\n"}, ErrorKind::protocol},
		{"deep nesting", {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"},
			ErrorKind::protocol},
		{"negative bulk", {"$-2\r\n"}, ErrorKind::protocol},
		{"bad length", {"$12x\r\n"}, ErrorKind::protocol},
		{"silence", {""}, ErrorKind::timeout},
		{"half a reply", {"$10\r\nabc"}, ErrorKind::timeout},
		{"huge announced bulk", {"$500000000000\r\nabc"}, ErrorKind::timeout},
		{"slow drip", {"$1000000\r\n" + std::string(1'000'000, 'x'), false, 1}, ErrorKind::timeout},
		{"more than allowed", {"$90000\r\n" + std::string(90'002, 'x')}, ErrorKind::protocol,
			30'000},
	};
	for (const Hostile &hostile : cases) {
		FakeServer server;
		Connection connection(server.endpoint(), server);
		connection.set_reply_limit(hostile.limit);
		server.script("GET", 0, hostile.answer);
		EXPECT_EQ(error_of([&] {
			connection.command({"GET", "k"});
		}),
			hostile.kind)
			<< hostile.name;
		EXPECT_FALSE(connection.alive()) << hostile.name;
	}
}

TEST(Connection, StopsWhenInterrupted) {
	FakeServer server;
	server.script("GET", 0, {""});
	Connection connection(server.endpoint(), server);
	server.interrupt_at = server.waits + 1;
	EXPECT_EQ(error_of([&] { connection.command({"GET", "k"}); }), ErrorKind::interrupted);
	EXPECT_FALSE(connection.alive());
	EXPECT_EQ(error_of([&] { Connection(server.endpoint(), server); }), ErrorKind::interrupted);
}

TEST(Error, IsOneCleanLine) {
	const Error error(ErrorKind::server, "two\r\nlines", "LOADING");
	EXPECT_STREQ(error.what(), "two  lines");
	EXPECT_STREQ(error.code(), "LOADING");
	EXPECT_LT(std::string(Error(ErrorKind::server, std::string(5000, 'x')).what()).size(), 300U);
	EXPECT_STREQ(Error(ErrorKind::server, "\xFF").what(), "error text is not valid UTF-8");
}

} // namespace
} // namespace session_store::redis
