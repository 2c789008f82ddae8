// TLS below a hiredis connection, where the build has hiredis 1 with its TLS half.
#pragma once

#include <hiredis/hiredis.h>

#include <chrono>
#include <string>

#include "redis/endpoint.h"
#include "redis/waiter.h"

#include "core/cpp_only.h"

struct ssl_ctx_st;

namespace session_store::redis {

// One connection's context; outlives it.
class Tls {
public:
	// Reads the files; the certificate of the server is always checked, its name too. Error kind
	// unsupported where this build has no TLS.
	explicit Tls(const Endpoint &endpoint);
	~Tls();
	Tls(const Tls &) = delete;
	Tls &operator=(const Tls &) = delete;

	// Shakes hands on a connected, non-blocking context, and leaves it speaking TLS.
	void start(redisContext *context, Waiter &waiter, std::chrono::milliseconds timeout);

private:
#if SESSION_STORE_TLS
	std::string host_;
	ssl_ctx_st *context_ = nullptr;
#endif
};

} // namespace session_store::redis
