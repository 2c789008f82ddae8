// The change feed: its two connections, its hints, its SCAN and its barrier.

#include <sys/random.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/glob.h"
#include "core/text.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::milliseconds;

constexpr std::string_view kChannel = "__redis__:invalidate";
constexpr std::string_view kScanCount = "250";
constexpr milliseconds kLongestDrain{100}; // of one pump(), however many hints keep coming
constexpr std::size_t kMessageLimit = std::size_t{64} << 20;

core::HashSeed random_seed() {
	core::HashSeed seed{};
	if (getentropy(seed.data(), sizeof(seed)) != 0)
		throw Error(ErrorKind::unsupported, "the system has no random bytes");
	return seed;
}

bool is_message(const redisReply &reply, std::string_view kind, std::size_t elements) {
	return is_array(reply) && reply.elements == elements && reply_text(*reply.element[0]) == kind;
}

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

} // namespace

Feed::Feed(Endpoint endpoint, std::string prefix, Waiter &waiter, FeedLimits limits)
	: endpoint_(std::move(endpoint)), prefix_(std::move(prefix)),
	  pattern_(core::glob_for_prefix(prefix_)), waiter_(waiter), limits_(limits),
	  dirty_(limits.dirty), lease_(endpoint_.database, prefix_) {}

Feed::~Feed() = default;

void Feed::connect() {
	disconnect();
	guarded([this] {
		const std::string run_id = open_subscriber();
		open_reader(run_id);
	});
	counters_.connects++;
	note_gap(kGapConnected);
}

void Feed::disconnect() noexcept {
	subscriber_.reset();
	writer_.reset();
	reader_.reset();
	barrier_ = Barrier::none;
	phase_ = Phase::idle;
	seen_.reset();
	gap_ |= std::exchange(answering_, kGapNone);
}

void Feed::pump() {
	require_connected();
	guarded([this] { drain(); });
}

Wake Feed::wait(milliseconds timeout) {
	require_connected();
	return guarded([this, timeout] {
		const std::uint64_t hints = counters_.hints;
		const unsigned gap_before = gap_;
		drain();
		poll_if_due();
		if (counters_.hints != hints || gap_ != gap_before)
			return Wake::ready;
		const Wake wake = waiter_.wait_idle(subscriber_->fd(), std::min(timeout, until_chores()));
		if (wake == Wake::ready)
			drain();
		return wake;
	});
}

unsigned Feed::gap() const noexcept {
	return gap_;
}

unsigned Feed::begin_comparison() {
	require_connected();
	seen_.emplace(random_seed(), limits_.filter_bytes);
	cursor_ = "0";
	counters_.scanned = 0;
	dirty_.clear_overflow();
	answering_ |= std::exchange(gap_, kGapNone);
	phase_ = Phase::scanning;
	return answering_;
}

bool Feed::scan_step() {
	require_connected();
	if (phase_ != Phase::scanning)
		return false;
	return guarded([this] {
		drain();
		poll_if_due();
		if (dirty_.size() > std::min(limits_.scan_backlog, limits_.dirty.max_keys / 2))
			return true;
		const ReplyPtr reply = prefix_.empty()
			? reader_->command_ok({"SCAN", cursor_, "COUNT", kScanCount}, "SCAN", Show::text)
			: reader_->command_ok(
				  {"SCAN", cursor_, "MATCH", pattern_, "COUNT", kScanCount}, "SCAN", Show::text);
		if (!is_array(*reply) || reply->elements != 2 || !is_string(*reply->element[0]) ||
			!is_array(*reply->element[1]))
			unexpected("SCAN");
		const Clock::time_point now = Clock::now();
		const redisReply &keys = *reply->element[1];
		for (std::size_t i = 0; i < keys.elements; i++) {
			const std::string_view key = reply_text(*keys.element[i]);
			std::string_view sid;
			if (!is_string(*keys.element[i]) || !core::sid_of_key(key, prefix_, &sid))
				unexpected("SCAN");
			if (!is_ours(key))
				continue;
			if (seen_->insert(sid))
				counters_.scanned++;
			dirty_.mark(key, now);
		}
		if (dirty_.overflowed())
			note_gap(kGapOverflow);
		cursor_ = reply_text(*reply->element[0]);
		if (cursor_ == "0")
			finish_scan();
		return phase_ == Phase::scanning;
	});
}

void Feed::rescan() {
	require_connected();
	if (phase_ != Phase::walking)
		return;
	cursor_ = "0";
	phase_ = Phase::scanning;
}

bool Feed::seen(std::string_view sid) const noexcept {
	return seen_ && seen_->seen(sid);
}

void Feed::note_seen(std::string_view sid) {
	if (seen_)
		seen_->insert(sid);
}

void Feed::mark(std::string_view sid) {
	std::string key;
	key.reserve(prefix_.size() + sid.size());
	key.append(prefix_).append(sid);
	if (!is_ours(key))
		return;
	dirty_.mark(key, Clock::now());
	if (dirty_.overflowed())
		note_gap(kGapOverflow);
}

void Feed::end_comparison() noexcept {
	if (phase_ != Phase::walking)
		return;
	phase_ = Phase::idle;
	seen_.reset();
	answering_ = kGapNone;
}

milliseconds Feed::oldest_age() const {
	return dirty_.oldest_age(Clock::now());
}

void Feed::start_barrier() {
	require_connected();
	guarded([this] {
		send_ping();
		barrier_ = Barrier::first;
		barrier_ping_ = ping_number_;
	});
}

bool Feed::caught_up() const {
	return barrier_ == Barrier::passed && dirty_.settled_since(barrier_time_);
}

void Feed::require_connected() const {
	if (!connected())
		throw Error(ErrorKind::closed, "there is no connection to Redis");
}

// S: tracking redirected to itself, acknowledged. Returns the run id of its server.
std::string Feed::open_subscriber() {
	subscriber_ = std::make_unique<Connection>(endpoint_, waiter_);
	Connection &connection = *subscriber_;
	connection.set_reply_limit(kMessageLimit);
	const ReplyPtr text = connection.command_ok({"INFO", "server"}, "INFO", Show::text);
	ServerInfo info;
	parse_info(reply_text(*text), endpoint_.database, &info);
	const ReplyPtr id = connection.command_ok({"CLIENT", "ID"}, "CLIENT ID", Show::text);
	if (!is_integer(*id))
		unexpected("CLIENT ID");
	const std::string client_id = std::to_string(id->integer);
	if (prefix_.empty())
		connection.command_ok({"CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "BCAST"},
			"CLIENT TRACKING", Show::text);
	else
		connection.command_ok(
			{"CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "BCAST", "PREFIX", prefix_},
			"CLIENT TRACKING", Show::text);
	check_tracking(client_id);
	subscribe();
	ping_sent_ = Clock::now();
	ping_number_ = pong_number_ = 0;
	return info.run_id;
}

// Sees that tracking is on and redirected to S itself, where Redis (6.2) can tell.
void Feed::check_tracking(std::string_view client_id) {
	const ReplyPtr info = subscriber_->command({"CLIENT", "TRACKINGINFO"});
	if (is_error(*info)) {
		if (error_code(*info) == "ERR" || error_code(*info) == "NOPERM")
			return;
		throw server_error(*info, "CLIENT TRACKINGINFO", Show::text);
	}
	bool on = false;
	bool bcast = false;
	bool broken = false;
	bool redirected = false;
	for (std::size_t i = 0; is_array(*info) && i + 1 < info->elements; i += 2) {
		const std::string_view name = reply_text(*info->element[i]);
		const redisReply &value = *info->element[i + 1];
		if (name == "redirect")
			redirected = is_integer(value) && std::to_string(value.integer) == client_id;
		for (std::size_t j = 0; name == "flags" && is_array(value) && j < value.elements; j++) {
			const std::string_view flag = reply_text(*value.element[j]);
			on = on || flag == "on";
			bcast = bcast || flag == "bcast";
			broken = broken || flag == "broken_redirect";
		}
	}
	if (!on || !bcast || broken || !redirected)
		throw Error(ErrorKind::unsupported, "Redis does not track keys as it was told to");
}

// Hints may come before the acknowledgement; they are taken like any other.
void Feed::subscribe() {
	ReplyPtr reply = subscriber_->command({"SUBSCRIBE", kChannel});
	while (!is_message(*reply, "subscribe", 3)) {
		if (is_error(*reply))
			throw server_error(*reply, "SUBSCRIBE", Show::text);
		handle_message(*reply);
		reply = subscriber_->read_reply();
	}
}

void Feed::push(std::span<const Push> pushes, std::span<PushResult> results, std::string *refusal) {
	require_connected();
	guarded([&, this] {
		drain();
		writer_->write(items_, pushes, results, refusal, clock_.now_ms(), limits_.exchange_bytes);
	});
}

bool Feed::lease(std::string_view holder, milliseconds ttl, std::string *other) {
	require_connected();
	return guarded([&, this] { return lease_.take(*reader_, holder, ttl, other); });
}

void Feed::release_lease(std::string_view holder) {
	require_connected();
	guarded([&, this] { lease_.release(*reader_, holder); });
}

// R: on the same server, which holds all its data.
void Feed::open_reader(const std::string &run_id) {
	reader_ = std::make_unique<Connection>(endpoint_, waiter_);
	meet_server(run_id);
	// A probe, since what answers as a version need not know the command.
	const ReplyPtr probe = reader_->command({"PEXPIRETIME", prefix_.empty() ? "probe" : prefix_});
	// No right to the keys says nothing about the command, and is no state to go on in.
	if (is_error(*probe) && error_code(*probe) == "NOPERM" &&
		reply_text(*probe).find(" key") != std::string_view::npos)
		throw server_error(*probe, "PEXPIRETIME", Show::text);
	has_pexpiretime_ = is_integer(*probe);
	writer_.emplace(*reader_, has_pexpiretime_);
	lease_.reset();
}

void Feed::note_gap(unsigned reason) noexcept {
	if ((gap_ & reason) == 0)
		counters_.gaps++;
	gap_ |= reason;
}

// Takes in what S has, then sees to its PING. Only what was really drained can tell a late PONG.
void Feed::drain() {
	const Clock::time_point start = Clock::now();
	bool drained = false;
	while (!drained && Clock::now() - start < kLongestDrain) {
		const ReplyPtr message = subscriber_->poll_reply();
		drained = message == nullptr;
		if (message)
			handle_message(*message);
	}
	const Clock::time_point now = Clock::now();
	const bool awaited = ping_number_ != pong_number_;
	if (awaited && drained && now - ping_sent_ > endpoint_.command_timeout)
		throw Error(ErrorKind::timeout, "Redis did not answer PING in time");
	if (!awaited && now - ping_sent_ >= limits_.ping_interval)
		send_ping();
	subscriber_->send_some();
}

void Feed::handle_message(const redisReply &message) {
	if (is_message(message, "message", 3) && reply_text(*message.element[1]) == kChannel)
		handle_invalidation(*message.element[2]);
	else if (is_message(message, "pong", 2))
		handle_pong(reply_text(*message.element[1]));
	else if (is_error(message))
		throw server_error(message, "the subscription", Show::text);
	else
		unexpected("SUBSCRIBE");
}

void Feed::handle_invalidation(const redisReply &payload) {
	const Clock::time_point now = Clock::now();
	if (is_nil(payload))
		note_gap(kGapFlushed);
	else if (is_array(payload))
		for (std::size_t i = 0; i < payload.elements; i++)
			hint(reply_text(*payload.element[i]), now);
	else // anybody can PUBLISH a string here; reading a key again does no harm
		hint(reply_text(payload), now);
	if (dirty_.overflowed())
		note_gap(kGapOverflow);
}

void Feed::handle_pong(std::string_view token) {
	std::uint64_t number = 0;
	const char *end = token.data() + token.size();
	if (std::from_chars(token.data(), end, number).ptr != end || number <= pong_number_ ||
		number > ping_number_)
		unexpected("PING");
	pong_number_ = number;
	if (ping_number_ != pong_number_)
		ping_sent_ = Clock::now();
	if (number != barrier_ping_)
		return;
	if (barrier_ == Barrier::first) {
		send_ping();
		barrier_ = Barrier::second;
		barrier_ping_ = ping_number_;
	} else if (barrier_ == Barrier::second) {
		barrier_ = Barrier::passed;
		barrier_time_ = Clock::now();
	}
}

// Whether the key is one to mirror.
bool Feed::is_ours(std::string_view key) const noexcept {
	return key.starts_with(prefix_) && !key.starts_with(kLeaseKeys);
}

void Feed::hint(std::string_view key, Clock::time_point now) {
	if (!is_ours(key))
		return;
	counters_.hints++;
	dirty_.mark(key, now);
}

void Feed::send_ping() {
	if (ping_number_ == pong_number_)
		ping_sent_ = Clock::now();
	ping_number_++;
	subscriber_->append({"PING", std::to_string(ping_number_)});
	subscriber_->send_some();
}

void Feed::finish_scan() {
	phase_ = Phase::walking;
	const ReplyPtr text = reader_->command_ok({"INFO", "keyspace"}, "INFO", Show::text);
	ServerInfo info;
	parse_info(reply_text(*text), endpoint_.database, &info);
	counters_.database_keys = info.database_keys;
	counters_.prefix_keys = static_cast<std::int64_t>(counters_.scanned);
	counters_.other_keys =
		std::max<std::int64_t>(counters_.database_keys - counters_.prefix_keys, 0);
}

} // namespace session_store::redis
