// Fuzzes the parsing of INFO and of the flags of notify-keyspace-events.

#include <cstdint>
#include <string_view>

#include "redis/announcements.h"
#include "redis/server_info.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
	using namespace session_store::redis;
	const std::string_view text(reinterpret_cast<const char *>(data), size);
	ServerInfo info;
	parse_info(text, 0, &info);
	(void)info.ready();
	(void)info.is_primary();
	(void)info.version_number();
	(void)parse_announcements(text);
	return 0;
}
