// TLS: against a Redis with certificates of its own, where the build has it; refused elsewhere.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "redis/feed.h"
#include "support/push.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using test::PollWaiter;
using test::RedisServer;

#if SESSION_STORE_TLS

// A certificate authority, a certificate for "localhost" and 127.0.0.1, and one of a client.
class TlsTest : public testing::Test {
protected:
	void SetUp() override {
		std::string pattern =
			(std::filesystem::temp_directory_path() / "session_store.XXXXXX").string();
		ASSERT_NE(mkdtemp(pattern.data()), nullptr);
		directory = pattern;
		const std::string script = "cd " + directory +
			" && exec >log 2>&1 && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca"
			" -keyout ca.key -out ca.crt && for name in server client; do"
			" openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr "
			"&&"
			" printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' >ext &&"
			" openssl x509 -req -days 2 -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial"
			" -extfile ext -out $name.crt || exit 1; done";
		ASSERT_EQ(std::system(script.c_str()), 0);
		port = test::free_port();
		server.emplace(std::vector<std::string>{"--tls-port", std::to_string(port),
			"--tls-cert-file", file("server.crt"), "--tls-key-file", file("server.key"),
			"--tls-ca-cert-file", file("ca.crt")});
	}
	void TearDown() override {
		std::error_code ignored;
		if (!directory.empty())
			std::filesystem::remove_all(directory, ignored);
	}
	std::string file(const std::string &name) const { return directory + "/" + name; }
	Endpoint endpoint(const std::string &host) const {
		Endpoint made;
		made.host = host;
		made.port = port;
		made.tls = true;
		made.tls_ca_file = file("ca.crt");
		made.tls_cert_file = file("client.crt");
		made.tls_key_file = file("client.key");
		return made;
	}
	std::string failure(const Endpoint &to) {
		try {
			const Connection connection(to, waiter);
		} catch (const Error &error) {
			return error.what();
		}
		return {};
	}

	std::string directory;
	int port = 0;
	std::optional<RedisServer> server;
	PollWaiter waiter;
};

TEST_F(TlsTest, TheFeedWorksOverIt) {
	Feed feed(endpoint("localhost"), "sess:", waiter);
	feed.connect();
	EXPECT_EQ(feed.mode(), Mode::tracking);
	const std::string large(3'000'000, 'x');
	server->run({"SET", "sess:large", large});
	server->run({"SET", "sess:small", "v"});
	EXPECT_TRUE(feed.confirm());
	std::size_t bytes = 0;
	const auto items = feed.fetch(kMaxFetch);
	for (const Item &item : items)
		bytes += item.value.size();
	EXPECT_EQ(bytes, large.size() + 1);
	const std::string larger(6'000'000, 'y');
	std::vector<Push> pushes{{0, false, larger, kNoExpiry}, {1, false, larger, kNoExpiry}};
	std::vector<PushResult> results(2);
	std::string refusal;
	test::push(feed, pushes, results, &refusal);
	EXPECT_EQ(results, std::vector<PushResult>(2, PushResult::done));
}

TEST_F(TlsTest, TheCertificateAndItsNameAreChecked) {
	EXPECT_EQ(failure(endpoint("127.0.0.1")), "");
	Endpoint other = endpoint("localhost");
	other.tls_ca_file = file("client.crt");
	EXPECT_NE(failure(other).find("certificate of Redis"), std::string::npos) << failure(other);
	other = endpoint("localhost");
	other.tls_ca_file.clear();
	EXPECT_NE(failure(other).find("certificate of Redis"), std::string::npos) << failure(other);
	other = endpoint("127.0.0.2");
	EXPECT_NE(failure(other).find("mismatch"), std::string::npos) << failure(other);
	other = endpoint("localhost");
	other.tls_ca_file = file("missing");
	EXPECT_NE(failure(other).find("tls_ca_file"), std::string::npos);
	other = endpoint("localhost");
	other.tls_cert_file.clear();
	EXPECT_NE(failure(other), "") << "Redis asks for a certificate";
}

TEST_F(TlsTest, APlainServerIsAnError) {
	const int plain = test::free_port();
	const RedisServer other({"--port", std::to_string(plain)});
	Endpoint to = endpoint("localhost");
	to.port = plain;
	EXPECT_NE(failure(to).find("TLS"), std::string::npos);
}

#else

TEST(Tls, IsRefusedInWordsWhereTheBuildHasNone) {
	Endpoint endpoint;
	endpoint.tls = true;
	PollWaiter waiter;
	try {
		const Connection connection(endpoint, waiter);
		FAIL() << "no error";
	} catch (const Error &error) {
		EXPECT_EQ(error.kind(), ErrorKind::unsupported);
		EXPECT_NE(std::string(error.what()).find("hiredis 1.0"), std::string::npos);
	}
}

#endif

} // namespace
} // namespace session_store::redis
