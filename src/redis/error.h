// What goes wrong with Redis, in one exception type that glue can copy out as plain data.
#pragma once

#include <cstdint>
#include <exception>
#include <string_view>

#include "core/cpp_only.h"

namespace session_store::redis {

enum class ErrorKind : std::uint8_t {
	connect,     // nobody there, or the name does not resolve
	auth,        // wrong user or password, or one is needed
	timeout,     // no answer in time
	closed,      // the connection went away
	protocol,    // an answer that cannot be, or that is larger than allowed
	server,      // an error reply; code() is its first word
	refused,     // the same, and the connection is as good as before
	interrupted, // the waiter said so
	unsupported, // asked for what this build or this Redis does not have
};

const char *error_kind_name(ErrorKind kind) noexcept;

// The message is one line of valid UTF-8 without a full stop. It never holds a password, a key or
// a value: of error replies to commands that carry one only the code word is kept.
class Error : public std::exception {
public:
	Error(ErrorKind kind, std::string_view message, std::string_view code = {}) noexcept;

	const char *what() const noexcept override { return message_; }
	ErrorKind kind() const noexcept { return kind_; }
	// The code word of an error reply, such as LOADING, NOPERM, WRONGPASS, MOVED; else empty.
	const char *code() const noexcept { return code_; }

private:
	static constexpr std::size_t kMessageBytes = 256;
	static constexpr std::size_t kCodeBytes = 32;

	ErrorKind kind_;
	char message_[kMessageBytes];
	char code_[kCodeBytes];
};

} // namespace session_store::redis
