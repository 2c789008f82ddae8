// Errors of the Redis side.

#include <algorithm>
#include <cstring>

#include "core/text.h"
#include "redis/error.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

template <std::size_t Size>
void copy_clipped(char (&to)[Size], std::string_view from) noexcept {
	const std::string_view clipped = core::utf8_clip(from, Size - 1);
	to[clipped.copy(to, Size - 1)] = '\0';
}

} // namespace

const char *error_kind_name(ErrorKind kind) noexcept {
	switch (kind) {
	case ErrorKind::connect:
		return "connect";
	case ErrorKind::auth:
		return "auth";
	case ErrorKind::timeout:
		return "timeout";
	case ErrorKind::closed:
		return "closed";
	case ErrorKind::protocol:
		return "protocol";
	case ErrorKind::server:
		return "server";
	case ErrorKind::refused:
		return "refused";
	case ErrorKind::interrupted:
		return "interrupted";
	case ErrorKind::unsupported:
		return "unsupported";
	}
	return "unknown";
}

Error::Error(ErrorKind kind, std::string_view message, std::string_view code) noexcept
	: kind_(kind) {
	if (!core::valid_utf8(message))
		message = "error text is not valid UTF-8";
	copy_clipped(message_, message);
	copy_clipped(code_, core::valid_utf8(code) ? code : std::string_view{});
	std::replace_if(
		message_, message_ + std::strlen(message_), [](char c) { return c == '\n' || c == '\r'; },
		' ');
}

} // namespace session_store::redis
