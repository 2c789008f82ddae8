// UTF-8 and sids.

#include <algorithm>

#include "core/text.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

constexpr bool is_continuation(unsigned char byte) noexcept {
	return (byte & 0xC0U) == 0x80U;
}

// Bytes of the character that starts here, 0 when none valid does.
std::size_t character_bytes(std::string_view at) noexcept {
	const auto byte = [at](std::size_t i) { return static_cast<unsigned char>(at[i]); };
	const unsigned char lead = byte(0);
	if (lead < 0x80)
		return 1;
	std::size_t length = 0;
	unsigned char second_min = 0x80;
	unsigned char second_max = 0xBF;
	if (lead >= 0xC2 && lead <= 0xDF) {
		length = 2;
	} else if (lead >= 0xE0 && lead <= 0xEF) {
		length = 3;
		second_min = lead == 0xE0 ? 0xA0 : 0x80; // overlong
		second_max = lead == 0xED ? 0x9F : 0xBF; // surrogates
	} else if (lead >= 0xF0 && lead <= 0xF4) {
		length = 4;
		second_min = lead == 0xF0 ? 0x90 : 0x80; // overlong
		second_max = lead == 0xF4 ? 0x8F : 0xBF; // above U+10FFFF
	}
	if (length == 0 || at.size() < length || byte(1) < second_min || byte(1) > second_max)
		return 0;
	for (std::size_t i = 2; i < length; i++)
		if (!is_continuation(byte(i)))
			return 0;
	return length;
}

} // namespace

bool valid_utf8(std::string_view bytes) noexcept {
	while (!bytes.empty()) {
		const std::size_t length = character_bytes(bytes);
		if (length == 0 || bytes.front() == '\0')
			return false;
		bytes.remove_prefix(length);
	}
	return true;
}

std::size_t utf8_length(std::string_view text) noexcept {
	return static_cast<std::size_t>(std::count_if(text.begin(), text.end(),
		[](char c) { return !is_continuation(static_cast<unsigned char>(c)); }));
}

std::string_view utf8_clip(std::string_view text, std::size_t max_bytes) noexcept {
	if (text.size() <= max_bytes)
		return text;
	std::size_t end = max_bytes;
	while (end > 0 && is_continuation(static_cast<unsigned char>(text[end])))
		end--;
	return text.substr(0, end);
}

SidProblem check_sid(std::string_view sid) noexcept {
	if (sid.empty())
		return SidProblem::empty;
	if (sid.find('\0') != std::string_view::npos)
		return SidProblem::nul_byte;
	if (!valid_utf8(sid))
		return SidProblem::not_utf8;
	if (utf8_length(sid) > kMaxSidCharacters)
		return SidProblem::too_long;
	return SidProblem::none;
}

const char *sid_problem_text(SidProblem problem) noexcept {
	switch (problem) {
	case SidProblem::none:
		return "";
	case SidProblem::empty:
		return "session id is empty";
	case SidProblem::too_long:
		return "session id is longer than 255 characters";
	case SidProblem::nul_byte:
		return "session id contains a NUL byte";
	case SidProblem::not_utf8:
		return "session id is not valid UTF-8";
	}
	return "session id is not valid";
}

std::string_view sid_excerpt(std::string_view sid) noexcept {
	std::size_t end = 0;
	for (std::size_t shown = 0; shown < kShownSidCharacters && end < sid.size(); shown++) {
		const std::size_t length = character_bytes(sid.substr(end));
		if (length == 0 || sid[end] == '\0')
			return {};
		end += length;
	}
	return sid.substr(0, end);
}

bool sid_of_key(std::string_view key, std::string_view prefix, std::string_view *sid) noexcept {
	if (!key.starts_with(prefix))
		return false;
	*sid = key.substr(prefix.size());
	return true;
}

} // namespace session_store::core
