// Text as it comes from Redis, untrusted: UTF-8, sids, and what of them may be shown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace session_store::core {

inline constexpr std::size_t kMaxSidCharacters = 255;
inline constexpr std::size_t kShownSidCharacters = 4;

// Valid as PostgreSQL judges it: no overlong form, no surrogate, nothing above U+10FFFF, no NUL.
bool valid_utf8(std::string_view bytes) noexcept;

// Characters of valid UTF-8.
std::size_t utf8_length(std::string_view text) noexcept;

// The longest start of at most `max_bytes` bytes that does not cut a character of valid UTF-8.
std::string_view utf8_clip(std::string_view text, std::size_t max_bytes) noexcept;

enum class SidProblem : std::uint8_t { none, empty, too_long, nul_byte, not_utf8 };

// Whether the store can have this sid: 1 to 255 characters of valid UTF-8 without NUL.
SidProblem check_sid(std::string_view sid) noexcept;

// The problem in words, such as "session id is longer than 255 characters"; "" for none.
const char *sid_problem_text(SidProblem problem) noexcept;

// What messages may show of a sid: its first 4 characters, or nothing when they are not UTF-8.
std::string_view sid_excerpt(std::string_view sid) noexcept;

// Whether the key lies under the prefix; then its sid, the rest, goes to *sid. The rest may be
// empty, which check_sid refuses.
bool sid_of_key(std::string_view key, std::string_view prefix, std::string_view *sid) noexcept;

} // namespace session_store::core
