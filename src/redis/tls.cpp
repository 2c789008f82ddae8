// The handshake, with OpenSSL, since hiredis by itself checks no host name.

#include <hiredis/hiredis.h>

#include "redis/endpoint.h"

#if SESSION_STORE_TLS
#include <arpa/inet.h>
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include <algorithm>
#include <string>

#include "redis/error.h"
#include "redis/tls.h"

#include "core/cpp_only.h"

namespace session_store::redis {

#if SESSION_STORE_TLS

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

[[noreturn]] void fail(const std::string &doing) {
	const unsigned long code = ERR_get_error();
	const char *reason = code == 0 ? nullptr : ERR_reason_error_string(code);
	ERR_clear_error();
	throw Error(ErrorKind::connect,
		"TLS: " + doing + (reason ? std::string(": ") + reason : std::string()));
}

[[noreturn]] void fail_handshake(const SSL *ssl) {
	const long verified = SSL_get_verify_result(ssl);
	if (verified != X509_V_OK)
		fail(std::string("certificate of Redis: ") + X509_verify_cert_error_string(verified));
	fail("the handshake with Redis failed");
}

bool is_address(const std::string &host) {
	unsigned char bytes[sizeof(in6_addr)];
	return inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
		inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

void check_name(SSL *ssl, const std::string &host) {
	const bool good = is_address(host)
		? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1
		: SSL_set1_host(ssl, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
	if (!good)
		fail("could not set the name of the server");
}

void shake_hands(SSL *ssl, int fd, Waiter &waiter, milliseconds timeout) {
	const Clock::time_point deadline = Clock::now() + timeout;
	for (;;) {
		const int result = SSL_do_handshake(ssl);
		if (result == 1)
			return;
		const int error = SSL_get_error(ssl, result);
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
			fail_handshake(ssl);
		}
		const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
		if (left <= milliseconds::zero())
			throw Error(ErrorKind::timeout, "TLS: Redis did not answer the handshake in time");
		if (waiter.wait(fd, error == SSL_ERROR_WANT_WRITE, left) == Wake::interrupted)
			throw Error(ErrorKind::interrupted, "interrupted while connecting to Redis");
	}
}

} // namespace

Tls::Tls(const Endpoint &endpoint)
	: host_(endpoint.host), context_(SSL_CTX_new(TLS_client_method())) {
	const auto fail_with = [this](const char *doing) {
		SSL_CTX_free(context_);
		context_ = nullptr;
		fail(doing);
	};
	if (context_ == nullptr)
		fail("no context");
	SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
	SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
	const bool trusts = endpoint.tls_ca_file.empty()
		? SSL_CTX_set_default_verify_paths(context_) == 1
		: SSL_CTX_load_verify_locations(context_, endpoint.tls_ca_file.c_str(), nullptr) == 1;
	if (!trusts)
		fail_with("could not load tls_ca_file");
	if (endpoint.tls_cert_file.empty())
		return;
	if (SSL_CTX_use_certificate_chain_file(context_, endpoint.tls_cert_file.c_str()) != 1)
		fail_with("could not load tls_cert_file");
	if (SSL_CTX_use_PrivateKey_file(context_, endpoint.tls_key_file.c_str(), SSL_FILETYPE_PEM) != 1)
		fail_with("could not load tls_key_file");
}

Tls::~Tls() {
	SSL_CTX_free(context_);
}

void Tls::start(redisContext *context, Waiter &waiter, milliseconds timeout) {
	SSL *ssl = SSL_new(context_);
	if (ssl == nullptr)
		fail("no connection");
	try {
		check_name(ssl, host_);
		// Takes it over when it succeeds, and only begins the handshake, since nothing blocks.
		if (redisInitiateSSL(context, ssl) != REDIS_OK)
			fail_handshake(ssl);
	} catch (...) {
		SSL_free(ssl);
		throw;
	}
	shake_hands(ssl, context->fd, waiter, timeout);
}

#else

Tls::Tls(const Endpoint &) {
	throw Error(ErrorKind::unsupported,
		"this build has no TLS for connections to Redis, which needs hiredis 1.0 or later");
}

Tls::~Tls() = default;

void Tls::start(redisContext *, Waiter &, std::chrono::milliseconds) {}

#endif

} // namespace session_store::redis
