// SCAN patterns for a literal prefix.

#include "core/glob.h"

#include "core/cpp_only.h"

namespace session_store::core {

std::string glob_for_prefix(std::string_view prefix) {
	constexpr std::string_view kSpecial = "*?[]^-\\";
	std::string pattern;
	pattern.reserve(prefix.size() + 1);
	for (const char c : prefix) {
		if (kSpecial.find(c) != std::string_view::npos)
			pattern += '\\';
		pattern += c;
	}
	pattern += '*';
	return pattern;
}

} // namespace session_store::core
