// What INFO says, as far as the mirror needs it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/cpp_only.h"

namespace session_store::redis {

struct ServerInfo {
	std::string version;
	std::string run_id;
	std::string role; // "master" or "slave"
	std::string replication_id;
	std::string maxmemory_policy; // empty when not asked
	bool loading = false;
	bool async_loading = false;
	bool master_link_up = true; // of a replica; a primary has none to lose
	bool master_sync_in_progress = false;
	std::int64_t swapdb_calls = 0;
	std::int64_t flush_calls = 0;   // FLUSHALL and FLUSHDB
	std::int64_t database_keys = 0; // of the database asked for; only from the keyspace section

	bool is_primary() const { return role == "master"; }
	// Whether what it answers is its whole data: nothing loading, and a replica linked.
	bool ready() const {
		return !loading && !async_loading && master_link_up && !master_sync_in_progress;
	}
	// 70015 for 7.0.15; 0 when it cannot be read.
	int version_number() const;
};

// Takes over what one INFO reply, of one section or of many, says; the rest stays as it is.
void parse_info(std::string_view text, int database, ServerInfo *info);

} // namespace session_store::redis
