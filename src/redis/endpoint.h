// Where a Redis is and how to get in.
#pragma once

#include <hiredis/hiredis.h>

#include <chrono>
#include <iosfwd>
#include <string>

#include "core/cpp_only.h"

namespace session_store::redis {

inline constexpr int kDefaultPort = 6379;

// hiredis has TLS from 1.0 on, in a library of its own, and OpenSSL does it.
#if HIREDIS_MAJOR >= 1 && __has_include(<hiredis/hiredis_ssl.h>) && __has_include(<openssl/ssl.h>)
#define SESSION_STORE_TLS 1
#else
#define SESSION_STORE_TLS 0
#endif

// Whether this build can speak TLS. Asking for it where it cannot is Error kind unsupported.
inline constexpr bool kTlsSupported = SESSION_STORE_TLS != 0;

struct Endpoint {
	std::string host = "localhost"; // not used when path is set
	int port = kDefaultPort;
	std::string path; // of a unix socket; empty for TCP
	int database = 0;
	std::string username; // empty: AUTH with the password alone
	std::string password; // empty together with username: no AUTH
	bool tls = false;
	std::string tls_ca_file;   // empty: what the system trusts
	std::string tls_cert_file; // empty: no certificate of our own
	std::string tls_key_file;
	std::chrono::milliseconds connect_timeout{3000};
	std::chrono::milliseconds command_timeout{3000}; // longest silence of Redis within a command

	// For messages: "host:port" or the path; never the user or the password.
	std::string describe() const { return path.empty() ? host + ":" + std::to_string(port) : path; }
};

// An endpoint holds a password and is not for printing.
std::ostream &operator<<(std::ostream &, const Endpoint &) = delete;

} // namespace session_store::redis
