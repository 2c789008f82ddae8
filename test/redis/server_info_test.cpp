// Parsing of INFO.

#include <gtest/gtest.h>

#include "redis/server_info.h"

namespace session_store::redis {
namespace {

TEST(ServerInfo, TakesWhatItNeedsFromManySections) {
	ServerInfo info;
	parse_info(
		"# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:slave\r\n"
		"master_link_status:down\r\nmaster_sync_in_progress:1\r\nmaster_replid:def\r\n",
		0, &info);
	parse_info("loading:1\r\nasync_loading:0\r\nmaxmemory_policy:allkeys-lru\r\n"
			   "cmdstat_swapdb:calls=3,usec=9\r\ncmdstat_flushall:calls=1,usec=1\r\n"
			   "cmdstat_flushdb:calls=4,usec=1\r\ndb0:keys=12,expires=3,avg_ttl=0\r\n"
			   "db1:keys=99,expires=0,avg_ttl=0",
		1, &info);
	EXPECT_EQ(info.version_number(), 70015);
	EXPECT_EQ(info.run_id, "abc");
	EXPECT_EQ(info.replication_id, "def");
	EXPECT_FALSE(info.is_primary());
	EXPECT_FALSE(info.master_link_up);
	EXPECT_TRUE(info.master_sync_in_progress);
	EXPECT_TRUE(info.loading);
	EXPECT_FALSE(info.async_loading);
	EXPECT_FALSE(info.ready());
	EXPECT_EQ(info.maxmemory_policy, "allkeys-lru");
	EXPECT_EQ(info.swapdb_calls, 3);
	EXPECT_EQ(info.flush_calls, 5);
	EXPECT_EQ(info.database_keys, 99);
}

TEST(ServerInfo, SurvivesNonsense) {
	for (const char *text : {"", ":", "\r\n\r\n", "run_id", "redis_version:", "loading:\r\n",
			 "cmdstat_swapdb:calls=", "cmdstat_swapdb:calls=x,", "db0:keys", "\n\n:\n"}) {
		ServerInfo info;
		parse_info(text, 0, &info);
		EXPECT_EQ(info.swapdb_calls, 0) << text;
		EXPECT_EQ(info.version_number(), 0) << text;
	}
	ServerInfo info;
	parse_info("cmdstat_flushall:calls=8446744073709551615\r\ncmdstat_flushdb:calls="
			   "8446744073709551615\r\n"
			   "cmdstat_flushdb:calls=-8446744073709551615\r\n",
		0, &info);
	EXPECT_GT(info.flush_calls, 0);
}

} // namespace
} // namespace session_store::redis
