// Parsing of INFO.

#include <algorithm>
#include <charconv>

#include "redis/server_info.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

template <typename Number>
Number to_number(std::string_view text) {
	Number number = 0;
	std::from_chars(text.data(), text.data() + text.size(), number);
	return number;
}

constexpr std::int64_t kMostCalls = std::int64_t{1} << 61; // the sum of two of them is a number

// The number behind "name=" in "a=1,b=2"; 0 when it is not there.
std::int64_t field(std::string_view fields, std::string_view name) {
	while (!fields.empty()) {
		const std::string_view one = fields.substr(0, fields.find(','));
		if (one.starts_with(name) && one.substr(name.size()).starts_with('='))
			return to_number<std::int64_t>(one.substr(name.size() + 1));
		fields.remove_prefix(one.size() == fields.size() ? one.size() : one.size() + 1);
	}
	return 0;
}

void take_line(
	std::string_view name, std::string_view value, const std::string &keyspace, ServerInfo *info) {
	if (name == "redis_version")
		info->version = value;
	else if (name == "run_id")
		info->run_id = value;
	else if (name == "role")
		info->role = value;
	else if (name == "master_replid")
		info->replication_id = value;
	else if (name == "maxmemory_policy")
		info->maxmemory_policy = value;
	else if (name == "loading")
		info->loading = value != "0";
	else if (name == "async_loading")
		info->async_loading = value != "0";
	else if (name == "master_link_status")
		info->master_link_up = value == "up";
	else if (name == "master_sync_in_progress")
		info->master_sync_in_progress = value != "0";
	else if (name == "cmdstat_swapdb")
		info->swapdb_calls = field(value, "calls");
	else if (name == "cmdstat_flushall" || name == "cmdstat_flushdb")
		info->flush_calls = std::min(
			info->flush_calls + std::clamp(field(value, "calls"), std::int64_t{0}, kMostCalls),
			kMostCalls);
	else if (name == keyspace)
		info->database_keys = field(value, "keys");
}

} // namespace

int ServerInfo::version_number() const {
	int number = 0;
	std::string_view rest = version;
	for (int part = 0; part < 3; part++) {
		number = number * 100 + to_number<int>(rest.substr(0, rest.find('.'))) % 100;
		rest.remove_prefix(
			rest.find('.') == std::string_view::npos ? rest.size() : rest.find('.') + 1);
	}
	return number;
}

void parse_info(std::string_view text, int database, ServerInfo *info) {
	const std::string keyspace = "db" + std::to_string(database);
	while (!text.empty()) {
		const std::size_t end = text.find('\n');
		std::string_view line = text.substr(0, end);
		text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
		if (line.ends_with('\r'))
			line.remove_suffix(1);
		const std::size_t colon = line.find(':');
		if (colon != std::string_view::npos)
			take_line(line.substr(0, colon), line.substr(colon + 1), keyspace, info);
	}
}

} // namespace session_store::redis
