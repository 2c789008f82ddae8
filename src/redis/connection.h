// One connection to Redis: hiredis' non-blocking half, with deadlines, and a limit on every reply.
//
// After an error the connection is dead and every call throws Error kind closed: make a new one.
// The caller's process must ignore SIGPIPE (PostgreSQL's workers do).
#pragma once

#include <hiredis/hiredis.h>

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "redis/endpoint.h"
#include "redis/error.h"
#include "redis/tls.h"
#include "redis/waiter.h"

#include "core/cpp_only.h"

namespace session_store::redis {

struct ReplyDeleter {
	void operator()(redisReply *reply) const noexcept { freeReplyObject(reply); }
};
using ReplyPtr = std::unique_ptr<redisReply, ReplyDeleter>;

// The bytes of a string, status or error reply; empty for the other types.
std::string_view reply_text(const redisReply &reply) noexcept;
bool is_error(const redisReply &reply) noexcept;
bool is_string(const redisReply &reply) noexcept;
bool is_integer(const redisReply &reply) noexcept;
bool is_array(const redisReply &reply) noexcept;
bool is_nil(const redisReply &reply) noexcept;

// The first word of an error reply when it looks like a code (A-Z), else "ERR".
std::string_view error_code(const redisReply &reply) noexcept;

// Whether the text of an error reply may be shown: not where the command carried a key or a secret.
enum class Show : std::uint8_t { code_only, text };
// Error kind server (or auth) made of an error reply; `doing` says what was tried: "tracking keys".
Error server_error(const redisReply &reply, std::string_view doing, Show show);

class Connection {
public:
	static constexpr std::size_t kDefaultReplyLimit = std::size_t{16} << 20;
	static constexpr std::size_t kMaxReplyElements = std::size_t{4} << 20;

	// Connects, AUTHenticates, SELECTs and sees PING answered. Looking up a host name may block for
	// as long as the resolver does; everything else waits through the waiter, which must outlive
	// the connection.
	Connection(const Endpoint &endpoint, Waiter &waiter);
	~Connection();
	Connection(const Connection &) = delete;
	Connection &operator=(const Connection &) = delete;

	// Puts one command, binary safe, behind those not sent yet.
	void append(std::span<const std::string_view> arguments);
	void append(std::initializer_list<std::string_view> arguments);

	// Sends what append() left, as far as the socket takes it now; true when all is sent.
	bool send_some();
	// Sends all of it.
	void flush();

	// Sends what is left and waits for the next reply, an error reply included, never null. Every
	// byte that arrives renews the command timeout; a whole reply has kReplyTimeouts times that
	// long, and a millisecond more for each kilobyte.
	ReplyPtr read_reply();
	static constexpr int kReplyTimeouts = 10;

	// The next reply if it is here or can be read without waiting, else null.
	ReplyPtr poll_reply();

	// append() and read_reply(); nothing else may be under way.
	ReplyPtr command(std::initializer_list<std::string_view> arguments);
	// The same, an error reply thrown as server_error().
	ReplyPtr command_ok(
		std::initializer_list<std::string_view> arguments, std::string_view doing, Show show);

	// Bytes of one reply that may be buffered; more is Error kind protocol.
	void set_reply_limit(std::size_t bytes) noexcept { reply_limit_ = bytes; }

	int fd() const noexcept;
	bool alive() const noexcept { return context_ != nullptr; }
	void close() noexcept;

private:
	using Clock = std::chrono::steady_clock;
	struct ContextDeleter {
		void operator()(redisContext *context) const noexcept { redisFree(context); }
	};
	// What our createArray needs to know; hangs off the reader's privdata.
	struct ArrayGuard {
		redisReplyObjectFunctions functions;
		redisReplyObjectFunctions original;
	};
	template <typename Count>
	static void *create_array(const redisReadTask *task, Count elements);

	void connect_tcp(const Endpoint &endpoint);
	void connect_unix(const Endpoint &endpoint);
	bool adopt(redisContext *context, Clock::time_point deadline, std::string *why);
	void log_in(const Endpoint &endpoint);
	void guard_arrays();
	void require_alive() const;
	redisReply *parse();
	bool read_some();
	void wait_until(bool want_write, Clock::time_point deadline, const char *doing);
	[[noreturn]] void fail(ErrorKind kind, std::string_view message);
	[[noreturn]] void fail_with_context(std::string_view doing);

	Waiter &waiter_;
	std::unique_ptr<Tls> tls_;                // likewise
	std::unique_ptr<ArrayGuard> array_guard_; // used by the context until the very end
	std::unique_ptr<redisContext, ContextDeleter> context_;
	std::chrono::milliseconds command_timeout_;
	std::size_t reply_limit_ = kDefaultReplyLimit;
	std::size_t reply_bytes_ = 0; // read for the reply that is not complete yet
	bool unsent_ = false;
};

} // namespace session_store::redis
