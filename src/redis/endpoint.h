// Where a Redis is and how to get in.
#pragma once

#include <chrono>
#include <iosfwd>
#include <string>

#include "core/cpp_only.h"

namespace session_store::redis {

inline constexpr int kDefaultPort = 6379;

// Whether this build can speak TLS. Asking for it where it cannot is Error kind unsupported.
inline constexpr bool kTlsSupported = false;

struct Endpoint {
	std::string host = "localhost"; // not used when path is set
	int port = kDefaultPort;
	std::string path; // of a unix socket; empty for TCP
	int database = 0;
	std::string username; // empty: AUTH with the password alone
	std::string password; // empty together with username: no AUTH
	bool tls = false;
	std::chrono::milliseconds connect_timeout{3000};
	std::chrono::milliseconds command_timeout{3000}; // longest silence of Redis within a command

	// For messages: "host:port" or the path; never the user or the password.
	std::string describe() const { return path.empty() ? host + ":" + std::to_string(port) : path; }
};

// An endpoint holds a password and is not for printing.
std::ostream &operator<<(std::ostream &, const Endpoint &) = delete;

} // namespace session_store::redis
