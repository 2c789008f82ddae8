// One connection to Redis over hiredis' non-blocking subset (the same in 0.14 and 1.x).

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "redis/connection.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kShownErrorBytes = 120;
constexpr int kReadsBetweenLooks = 64; // of 16 kB: how often a flood of data lets interrupts in
constexpr std::size_t kBytesPerMilli = 1000; // the least that a large reply must bring
constexpr int kMaxReplyDepth = 7;
constexpr int kKeepaliveSeconds = 15;
constexpr std::string_view kLineEnd = "\r\n";
constexpr std::size_t kCountBytes = 24; // of a line that announces how many follow, at most

#if HIREDIS_MAJOR >= 1
using ArrayCount = std::size_t;
#else
using ArrayCount = int;
#endif

// Text of an error reply made fit to be shown: printable ASCII, short, and without the arguments
// that Redis repeats of a command it does not know.
std::string shown_text(std::string_view text) {
	text = text.substr(0, text.find(", with args"));
	std::string shown(text.substr(0, kShownErrorBytes));
	std::replace_if(
		shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
	return shown;
}

std::string errno_text(int error) {
	char buffer[128] = "";
	// The GNU strerror_r may answer with a string of its own.
	return strerror_r(error, buffer, sizeof(buffer));
}

void append_count(std::string *command, char kind, std::size_t count) {
	char digits[kCountBytes];
	const char *end = std::to_chars(digits, digits + sizeof(digits), count).ptr;
	command->push_back(kind);
	command->append(std::string_view(digits, end)).append(kLineEnd);
}

struct AddressListDeleter {
	void operator()(addrinfo *list) const noexcept { freeaddrinfo(list); }
};

// The numeric addresses of a host, in the resolver's order.
std::vector<std::string> resolve(const std::string &host) {
	addrinfo hints{};
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	addrinfo *list = nullptr;
	const int failed = getaddrinfo(host.c_str(), nullptr, &hints, &list);
	if (failed != 0)
		throw Error(ErrorKind::connect,
			"could not look up host \"" + shown_text(host) + "\": " + gai_strerror(failed));
	const std::unique_ptr<addrinfo, AddressListDeleter> owner(list);
	std::vector<std::string> addresses;
	for (const addrinfo *one = list; one != nullptr; one = one->ai_next) {
		char numeric[NI_MAXHOST];
		if (getnameinfo(one->ai_addr, one->ai_addrlen, numeric, sizeof(numeric), nullptr, 0,
				NI_NUMERICHOST) == 0)
			addresses.emplace_back(numeric);
	}
	return addresses;
}

// Makes a peer that vanished without a word known after a while.
void keep_alive(int fd) {
	const int on = 1;
	const int seconds = kKeepaliveSeconds;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
}

} // namespace

std::string_view reply_text(const redisReply &reply) noexcept {
	if (reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS ||
		reply.type == REDIS_REPLY_ERROR)
		return {reply.str, static_cast<std::size_t>(reply.len)};
	return {};
}

bool is_error(const redisReply &reply) noexcept {
	return reply.type == REDIS_REPLY_ERROR;
}

bool is_string(const redisReply &reply) noexcept {
	return reply.type == REDIS_REPLY_STRING;
}

bool is_integer(const redisReply &reply) noexcept {
	return reply.type == REDIS_REPLY_INTEGER;
}

bool is_array(const redisReply &reply) noexcept {
	return reply.type == REDIS_REPLY_ARRAY;
}

bool is_nil(const redisReply &reply) noexcept {
	return reply.type == REDIS_REPLY_NIL;
}

std::string_view error_code(const redisReply &reply) noexcept {
	constexpr std::size_t kLongestCode = 30;
	const std::string_view text = reply_text(reply);
	const std::string_view word = text.substr(0, text.find(' '));
	const bool plain = !word.empty() && word.size() <= kLongestCode &&
		std::all_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
	return plain ? word : "ERR";
}

Error server_error(const redisReply &reply, std::string_view doing, Show show) {
	const std::string_view code = error_code(reply);
	const bool auth = code == "NOAUTH" || code == "WRONGPASS";
	std::string message = "Redis refused ";
	message += doing;
	message += ": ";
	message += show == Show::text ? shown_text(reply_text(reply)) : std::string(code);
	while (message.ends_with('.'))
		message.pop_back();
	return Error(auth ? ErrorKind::auth : ErrorKind::server, message, code);
}

Connection::Connection(const Endpoint &endpoint, Waiter &waiter)
	: waiter_(waiter), command_timeout_(endpoint.command_timeout) {
	if (endpoint.tls)
		tls_ = std::make_unique<Tls>(endpoint);
	if (endpoint.path.empty())
		connect_tcp(endpoint);
	else
		connect_unix(endpoint);
	if (tls_)
		tls_->start(context_.get(), waiter_, endpoint.connect_timeout);
	guard_arrays();
	log_in(endpoint);
}

Connection::~Connection() = default;

void Connection::append(std::span<const std::string_view> arguments) {
	require_alive();
	std::size_t size = kCountBytes;
	for (const std::string_view argument : arguments)
		size += kCountBytes + argument.size() + kLineEnd.size();
	std::string command;
	command.reserve(size);
	append_count(&command, '*', arguments.size());
	for (const std::string_view argument : arguments) {
		append_count(&command, '$', argument.size());
		command.append(argument).append(kLineEnd);
	}
	if (redisAppendFormattedCommand(context_.get(), command.data(), command.size()) != REDIS_OK)
		throw std::bad_alloc();
	unsent_ = true;
}

void Connection::append(std::initializer_list<std::string_view> arguments) {
	append(std::span<const std::string_view>(arguments.begin(), arguments.size()));
}

bool Connection::send_some() {
	require_alive();
	if (!unsent_)
		return true;
	int done = 0;
	if (redisBufferWrite(context_.get(), &done) != REDIS_OK)
		fail_with_context("sending to Redis");
	unsent_ = done == 0;
	return !unsent_;
}

void Connection::flush() {
	if (send_some())
		return;
	const Clock::time_point deadline = Clock::now() + command_timeout_;
	while (!send_some())
		wait_until(true, deadline, "Redis took nothing more in time");
}

ReplyPtr Connection::read_reply() {
	flush();
	if (redisReply *reply = parse(); reply != nullptr)
		return ReplyPtr(reply);
	const Clock::time_point start = Clock::now();
	Clock::time_point last_byte = start;
	for (int reads = 1;; reads++) {
		const bool look = reads % kReadsBetweenLooks == 0;
		if (read_some()) {
			last_byte = Clock::now();
			if (look && waiter_.wait(fd(), false, milliseconds::zero()) == Wake::interrupted)
				fail(ErrorKind::interrupted, "interrupted while Redis was answering");
		} else {
			wait_until(false, last_byte + command_timeout_, "Redis did not answer in time");
		}
		const milliseconds allowed = command_timeout_ * kReplyTimeouts +
			milliseconds{static_cast<milliseconds::rep>(reply_bytes_ / kBytesPerMilli)};
		if (last_byte - start > allowed)
			fail(ErrorKind::timeout, "Redis answered too slowly");
		if (redisReply *reply = parse(); reply != nullptr)
			return ReplyPtr(reply);
	}
}

ReplyPtr Connection::poll_reply() {
	require_alive();
	for (;;) {
		if (redisReply *reply = parse(); reply != nullptr)
			return ReplyPtr(reply);
		if (!read_some())
			return nullptr;
	}
}

ReplyPtr Connection::command(std::initializer_list<std::string_view> arguments) {
	append(arguments);
	return read_reply();
}

ReplyPtr Connection::command_ok(
	std::initializer_list<std::string_view> arguments, std::string_view doing, Show show) {
	ReplyPtr reply = command(arguments);
	if (is_error(*reply))
		throw server_error(*reply, doing, show);
	return reply;
}

int Connection::fd() const noexcept {
	return context_ ? context_->fd : -1;
}

void Connection::close() noexcept {
	context_.reset();
}

// Tries each address in turn, within one timeout for all of them.
void Connection::connect_tcp(const Endpoint &endpoint) {
	const std::vector<std::string> addresses = resolve(endpoint.host);
	const Clock::time_point deadline = Clock::now() + endpoint.connect_timeout;
	std::string why = "no address";
	for (std::size_t i = 0; i < addresses.size(); i++) {
		const auto left = std::max(deadline - Clock::now(), Clock::duration::zero());
		const auto share = left / static_cast<Clock::rep>(addresses.size() - i);
		if (adopt(redisConnectNonBlock(addresses[i].c_str(), endpoint.port), Clock::now() + share,
				&why)) {
			keep_alive(fd());
			return;
		}
	}
	throw Error(ErrorKind::connect,
		"could not connect to Redis at " + shown_text(endpoint.describe()) + ": " + why);
}

void Connection::connect_unix(const Endpoint &endpoint) {
	// hiredis would cut a longer path and connect to another socket.
	if (endpoint.path.size() >= sizeof(sockaddr_un::sun_path))
		throw Error(ErrorKind::connect, "path of the Redis socket is too long");
	std::string why;
	if (!adopt(redisConnectUnixNonBlock(endpoint.path.c_str()),
			Clock::now() + endpoint.connect_timeout, &why))
		throw Error(ErrorKind::connect,
			"could not connect to Redis at " + shown_text(endpoint.describe()) + ": " + why);
}

// Takes over a context that is connecting and waits until it is connected; false, the context
// gone and *why set, when it does not get there.
bool Connection::adopt(redisContext *context, Clock::time_point deadline, std::string *why) {
	context_.reset(context);
	if (!context_)
		throw std::bad_alloc();
	if (context_->err != 0) {
		*why = shown_text(context_->errstr);
		context_.reset();
		return false;
	}
	for (;;) {
		const milliseconds left =
			std::chrono::ceil<milliseconds>(std::max(deadline - Clock::now(), Clock::duration{}));
		const Wake wake = waiter_.wait(fd(), true, left);
		if (wake == Wake::interrupted)
			fail(ErrorKind::interrupted, "interrupted while connecting to Redis");
		if (wake == Wake::ready)
			break;
		if (Clock::now() >= deadline) {
			*why = "timed out";
			context_.reset();
			return false;
		}
	}
	int error = 0;
	socklen_t size = sizeof(error);
	if (getsockopt(fd(), SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	if (error == 0)
		return true;
	*why = errno_text(error);
	context_.reset();
	return false;
}

void Connection::log_in(const Endpoint &endpoint) {
	if (!endpoint.username.empty() || !endpoint.password.empty()) {
		const ReplyPtr reply = endpoint.username.empty()
			? command({"AUTH", endpoint.password})
			: command({"AUTH", endpoint.username, endpoint.password});
		if (is_error(*reply)) {
			if (reply_text(*reply).starts_with("ERR max number of clients"))
				throw server_error(*reply, "the connection", Show::text);
			const std::string code(error_code(*reply));
			fail(ErrorKind::auth, "Redis refused the user name or password: " + code);
		}
	}
	if (endpoint.database != 0)
		command_ok({"SELECT", std::to_string(endpoint.database)}, "the database", Show::text);
	command_ok({"PING"}, "PING", Show::text);
}

// Puts a limit on the elements of one array, which hiredis allocates when they are announced, and
// on the depth, since it frees replies by recursion (and 1.x has no limit of its own).
void Connection::guard_arrays() {
	array_guard_ = std::make_unique<ArrayGuard>();
	redisReader *reader = context_->reader;
	array_guard_->original = *reader->fn;
	array_guard_->functions = *reader->fn;
	array_guard_->functions.createArray = &Connection::create_array<ArrayCount>;
	reader->fn = &array_guard_->functions;
	reader->privdata = array_guard_.get();
}

template <typename Count>
void *Connection::create_array(const redisReadTask *task, Count elements) {
	const auto *guard = static_cast<const ArrayGuard *>(task->privdata);
	int depth = 0;
	for (const redisReadTask *outer = task; outer != nullptr; outer = outer->parent)
		if (++depth > kMaxReplyDepth)
			return nullptr;
	if (static_cast<std::make_unsigned_t<Count>>(elements) > kMaxReplyElements)
		return nullptr; // hiredis reports it as out of memory
	return guard->original.createArray(task, elements);
}

void Connection::require_alive() const {
	if (!context_)
		throw Error(ErrorKind::closed, "the connection to Redis is closed");
}

redisReply *Connection::parse() {
	require_alive();
	void *reply = nullptr;
	if (redisGetReplyFromReader(context_.get(), &reply) != REDIS_OK)
		fail_with_context("reading from Redis");
	if (reply != nullptr)
		reply_bytes_ = context_->reader->len - context_->reader->pos;
	return static_cast<redisReply *>(reply);
}

// Reads what is there, up to hiredis' 16 kB; false when there is nothing.
bool Connection::read_some() {
	if (reply_bytes_ > reply_limit_)
		fail(ErrorKind::protocol, "a reply of Redis is larger than allowed");
	const std::size_t before = context_->reader->len;
	if (redisBufferRead(context_.get()) != REDIS_OK)
		fail_with_context("reading from Redis");
	const std::size_t count = context_->reader->len - before;
	reply_bytes_ += count;
	return count > 0;
}

// Waits until the socket is ready; may also return early.
void Connection::wait_until(bool want_write, Clock::time_point deadline, const char *doing) {
	const Clock::duration left = deadline - Clock::now();
	if (left <= Clock::duration::zero())
		fail(ErrorKind::timeout, doing);
	if (waiter_.wait(fd(), want_write, std::chrono::ceil<milliseconds>(left)) == Wake::interrupted)
		fail(ErrorKind::interrupted, "interrupted while waiting for Redis");
}

void Connection::fail(ErrorKind kind, std::string_view message) {
	const Error error(kind, message);
	close();
	throw error;
}

void Connection::fail_with_context(std::string_view doing) {
	const int error_number = errno;
	ErrorKind kind = ErrorKind::closed;
	std::string message(doing);
	switch (context_->err) {
	case REDIS_ERR_IO:
		message += ": " + errno_text(error_number);
		break;
	case REDIS_ERR_EOF:
		message = "Redis closed the connection";
		break;
	case REDIS_ERR_OOM:
		kind = ErrorKind::protocol;
		message += ": a reply is larger than allowed, or out of memory";
		break;
	default:
		kind = ErrorKind::protocol;
		message += ": " + shown_text(context_->errstr);
		break;
	}
	fail(kind, message);
}

} // namespace session_store::redis
