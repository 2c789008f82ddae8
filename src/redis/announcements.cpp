// The flags of notify-keyspace-events.

#include "redis/announcements.h"

#include "core/cpp_only.h"

namespace session_store::redis {

Announcements parse_announcements(std::string_view flags) noexcept {
	const auto has = [flags](char flag) { return flags.find(flag) != std::string_view::npos; };
	const auto has_class = [&](char flag) { return has('A') || has(flag); };
	Announcements announced;
	announced.known = true;
	announced.changes = has('K') && has_class('g') && has_class('$') && has_class('x');
	announced.keyspace_evicted = has('K') && has_class('e');
	announced.keyevent_evicted = has('E') && has_class('e');
	return announced;
}

} // namespace session_store::redis
