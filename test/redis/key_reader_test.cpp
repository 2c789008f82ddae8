// Reading all keys, some, and those that are named.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "redis/key_reader.h"
#include "support/redis_server.h"

namespace session_store::redis {
namespace {

using test::PollWaiter;
using test::RedisServer;
using namespace std::string_view_literals;

struct Read {
	ItemKind kind;
	std::string value;
	std::int64_t expire_ms;
};

// Everything the reader gives, by sid; a group is looked at after the next one has been asked for.
std::map<std::string, Read> read_all(KeyReader *reader) {
	std::map<std::string, Read> found;
	std::span<const Item> items;
	while (reader->next(&items))
		for (const Item &item : items)
			found[std::string(item.sid)] = {item.kind, std::string(item.value), item.expire_ms};
	return found;
}

void fill(RedisServer *server, int count) {
	Connection &client = server->client();
	for (int i = 0; i < count; i++)
		client.append({"SET", "sess:" + std::to_string(i), "value of " + std::to_string(i), "PXAT",
			std::to_string(4'000'000'000'000 + i)});
	for (int i = 0; i < count; i++)
		client.read_reply();
}

TEST(KeyReader, ReadsEveryKeyUnderThePrefix) {
	RedisServer server;
	PollWaiter waiter;
	fill(&server, 3000);
	server.run({"SET", "other:1", "x"});
	server.run({"SET", "sess:\xFF\0"sv, "odd"});
	server.run({"HSET", "sess:hash", "a", "1"});
	Connection connection(server.endpoint(), waiter);
	KeyReader reader(connection, "sess:");
	reader.start_scan();
	const auto found = read_all(&reader);
	ASSERT_EQ(found.size(), 3002U);
	for (int i = 0; i < 3000; i++) {
		const Read &one = found.at(std::to_string(i));
		ASSERT_EQ(one.kind, ItemKind::value);
		ASSERT_EQ(one.value, "value of " + std::to_string(i));
		ASSERT_EQ(one.expire_ms, 4'000'000'000'000 + i);
	}
	EXPECT_EQ(found.at(std::string("\xFF\0"sv)).expire_ms, kNoExpiry);
	EXPECT_EQ(found.at("hash").kind, ItemKind::other_type);
	EXPECT_EQ(count_keys(connection, "sess:"), 3002U);
}

TEST(KeyReader, ReadsWhatIsNamedAndSaysWhatIsGone) {
	RedisServer server;
	PollWaiter waiter;
	fill(&server, 10);
	Connection connection(server.endpoint(), waiter);
	KeyReader reader(connection, "sess:");
	for (int i = 5; i < 1000; i++)
		reader.add(std::to_string(i));
	const auto found = read_all(&reader);
	ASSERT_EQ(found.size(), 995U);
	EXPECT_EQ(found.at("9").value, "value of 9");
	EXPECT_EQ(found.at("10").kind, ItemKind::absent);
	std::span<const Item> items;
	EXPECT_FALSE(reader.next(&items));
}

TEST(KeyReader, BoundsWhatIsUnderWay) {
	RedisServer server;
	PollWaiter waiter;
	const std::string large(3'000'000, 'x');
	for (int i = 0; i < 20; i++)
		server.run({"SET", "sess:" + std::to_string(i), large});
	server.run({"APPEND", "sess:7", large});
	Connection connection(server.endpoint(), waiter);
	KeyReader::Limits limits;
	limits.max_value = 4'000'000;
	KeyReader reader(connection, "sess:", limits);
	reader.start_scan();
	std::size_t count = 0;
	std::span<const Item> items;
	while (reader.next(&items)) {
		std::size_t bytes = 0;
		for (const Item &item : items) {
			bytes += item.value.size();
			EXPECT_EQ(item.kind, item.sid == "7" ? ItemKind::too_large : ItemKind::value);
		}
		EXPECT_LE(bytes, limits.group_bytes);
		count += items.size();
	}
	EXPECT_EQ(count, 20U);
}

TEST(KeyReader, SamplesAboutAsManyAsAsked) {
	RedisServer server;
	PollWaiter waiter;
	fill(&server, 20000);
	Connection connection(server.endpoint(), waiter);
	KeyReader reader(connection, "sess:");
	reader.start_sample(1000);
	const auto first = read_all(&reader);
	EXPECT_LE(first.size(), 1000U);
	EXPECT_GT(first.size(), 500U); // fewer where places overlap
	reader.start_sample(1000);
	const auto second = read_all(&reader);
	EXPECT_FALSE(std::equal(first.begin(), first.end(), second.begin(), second.end(),
		[](const auto &a, const auto &b) { return a.first == b.first; }));
}

TEST(KeyReader, ASampleOfAllIsAll) {
	RedisServer server;
	PollWaiter waiter;
	fill(&server, 3000);
	Connection connection(server.endpoint(), waiter);
	KeyReader reader(connection, "sess:");
	reader.start_scan();
	const auto all = read_all(&reader);
	reader.start_sample(10000);
	EXPECT_EQ(read_all(&reader).size(), all.size());
}

TEST(KeyReader, NeverSeesLeases) {
	RedisServer server;
	PollWaiter waiter;
	server.run({"SET", "session_store:lease:0:", "somebody"});
	server.run({"SET", "a", "1"});
	Connection connection(server.endpoint(), waiter);
	KeyReader reader(connection, "");
	reader.start_scan();
	EXPECT_EQ(read_all(&reader).size(), 1U);
	EXPECT_EQ(count_keys(connection, ""), 1U);
}

} // namespace
} // namespace session_store::redis
