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

constexpr std::size_t kEchoes = 100'000;   // of what may wait to be read again
constexpr milliseconds kLongestDrain{100}; // of one pump(), however many hints keep coming

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

} // namespace

Feed::Feed(Endpoint endpoint, std::string prefix, Waiter &waiter, FeedLimits limits)
	: endpoint_(std::move(endpoint)), prefix_(std::move(prefix)),
	  pattern_(core::glob_for_prefix(prefix_)), waiter_(waiter), limits_(limits),
	  dirty_(limits.dirty), echoes_(random_seed(), kEchoes), lease_(endpoint_.database, prefix_) {}

Feed::~Feed() = default;

void Feed::connect() {
	disconnect();
	guarded([this] {
		const std::string run_id = open_subscriber();
		open_reader(run_id);
	});
	connected_at_ = Clock::now();
	polls_ = 0;
	counters_.connects++;
	note_gap(kGapConnected);
}

void Feed::disconnect() noexcept {
	subscriber_.reset();
	writer_.reset();
	reader_.reset();
	pending_.clear();
	next_.release();
	echoes_.clear();
	pushes_.clear();
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

void Feed::start_push(std::span<const Push> pushes) {
	require_connected();
	guarded([&, this] {
		drain();
		if (!writer_->ready()) {
			settle();
			writer_->prepare();
		}
		const std::int64_t now_ms = clock_.now_ms();
		std::size_t sent = 0;
		for (const Push &push : pushes) {
			Begun &begun = pushes_.emplace_back(Begun{push, PushResult::refused});
			if (writer_->bytes() > limits_.exchange_bytes) {
				pending_.push_back({Pending::pushes, std::exchange(sent, 0)});
				settle();
			}
			if (writer_->start(current_.items, begun.push, &begun.result, now_ms))
				sent++;
		}
		pending_.push_back({Pending::pushes, sent});
		reader_->send_some();
	});
}

void Feed::finish_pushes(std::span<PushResult> results, std::string *refusal) {
	require_connected();
	guarded([&, this] {
		settle();
		writer_->finish(refusal, limits_.exchange_bytes);
		note_pushed();
		for (std::size_t i = 0; i < results.size() && i < pushes_.size(); i++)
			results[i] = pushes_[i].result;
		pushes_.clear();
	});
}

bool Feed::lease(std::string_view holder, milliseconds ttl, std::string *other) {
	require_connected();
	return guarded([&, this] { return lease_.take(settled_reader(), holder, ttl, other); });
}

void Feed::release_lease(std::string_view holder) {
	require_connected();
	guarded([&, this] { lease_.release(settled_reader(), holder); });
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
	echoes_.clear();
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

bool Feed::awaits(Pending what) const {
	return std::any_of(pending_.begin(), pending_.end(),
		[what](const Asked &asked) { return asked.what == what; });
}

// Takes in what R has been asked ahead; nothing else can be asked before.
void Feed::settle() {
	while (!pending_.empty()) {
		const Asked &asked = pending_.front();
		if (asked.what == Pending::scan)
			receive_scan();
		else if (asked.what == Pending::batch)
			receive_batch();
		else
			writer_->receive(asked.count);
		pending_.pop_front();
	}
}

Connection &Feed::settled_reader() {
	settle();
	return *reader_;
}

// What was written comes back as hints.
void Feed::note_pushed() {
	for (const auto &[push, result] : pushes_)
		if (result == PushResult::done && push.settles)
			echoes_.note(current_.items[push.item].key, {push.remove, push.expire_ms, push.value});
}

// Writes that nobody waits for: what they show is going away, and what they did is not known.
void Feed::give_up_pushes() noexcept {
	if (!pushes_.empty())
		disconnect();
}

core::HashSeed Feed::random_seed() {
	core::HashSeed seed{};
	if (getentropy(seed.data(), sizeof(seed)) != 0)
		throw Error(ErrorKind::unsupported, "the system has no random bytes");
	return seed;
}

// Whether the key is one to mirror.
bool Feed::is_ours(std::string_view key) const noexcept {
	return key.starts_with(prefix_) && !key.starts_with(kLeaseKeys);
}

void Feed::hint(std::string_view key, Clock::time_point now) {
	if (!is_ours(key))
		return;
	counters_.hints++;
	dirty_.hint(key, now);
}

void Feed::hint_evicted(std::string_view key, Clock::time_point now) {
	if (!is_ours(key))
		return;
	counters_.evictions++;
	evicted_seen_ = true;
	dirty_.hint_evicted(key, now, mode_ == Mode::tracking);
	if (dirty_.overflowed())
		note_gap(kGapOverflow);
}

void Feed::send_ping() {
	if (ping_number_ == pong_number_)
		ping_sent_ = Clock::now();
	ping_number_++;
	subscriber_->append({"PING", std::to_string(ping_number_)});
	subscriber_->send_some();
}

} // namespace session_store::redis
