// Fuzzes what judges keys and sids: UTF-8, lengths, prefixes, what may be shown of them.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/glob.h"
#include "core/text.h"

namespace {

void require(bool good) {
	if (!good)
		std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
	using namespace session_store::core;
	if (size == 0)
		return 0;
	const std::string_view text(reinterpret_cast<const char *>(data + 1), size - 1);
	const std::size_t cut = data[0];
	require(valid_utf8(sid_excerpt(text)));
	const SidProblem problem = check_sid(text);
	require(sid_problem_text(problem) != nullptr);
	if (problem == SidProblem::none)
		require(valid_utf8(text) && utf8_length(text) <= kMaxSidCharacters && !text.empty());
	if (valid_utf8(text)) {
		const std::string_view clipped = utf8_clip(text, cut);
		require(clipped.size() <= cut && text.starts_with(clipped) && valid_utf8(clipped));
		require(utf8_length(clipped) <= utf8_length(text));
	}
	const std::string_view prefix = text.substr(0, cut);
	std::string_view sid;
	require(sid_of_key(text, prefix, &sid) && prefix.size() + sid.size() == text.size());
	require(glob_for_prefix(prefix).ends_with('*'));
	return 0;
}
