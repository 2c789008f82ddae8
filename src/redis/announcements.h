// What notify-keyspace-events makes Redis announce.
#pragma once

#include <string_view>

#include "core/cpp_only.h"

namespace session_store::redis {

struct Announcements {
	bool known = false;            // Redis told us the setting
	bool changes = false;          // of strings, by keyspace events: K, g, $ and x
	bool keyspace_evicted = false; // K and e
	bool keyevent_evicted = false; // E and e
};

// From the flags of the setting, such as "Kg$xe" or "AKE".
Announcements parse_announcements(std::string_view flags) noexcept;

} // namespace session_store::redis
