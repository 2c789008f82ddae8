// Who Redis is, whether it is still the same, and what its clock says.

#include <algorithm>
#include <array>

#include "core/schedule.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::milliseconds;

constexpr std::array<std::string_view, 6> kAllSections{
	"server", "replication", "commandstats", "persistence", "keyspace", "memory"};
constexpr std::size_t kPolledSections = 5;
constexpr std::size_t kConfirmingSections = 3;
constexpr unsigned kAnnouncementPolls = 5;
constexpr int kClockReadings = 4; // at a new connection

milliseconds since_epoch(Feed::Clock::time_point time) {
	return std::chrono::floor<milliseconds>(time.time_since_epoch());
}

// A counter that is lower than before was reset (CONFIG RESETSTAT), and counts from 0 since.
bool has_grown(std::int64_t before, std::int64_t now) {
	return now > before || (now < before && now > 0);
}

} // namespace

Identity Feed::identity() const {
	if (!seen_server_)
		return {};
	return {server_.run_id, server_.replication_id, server_.swapdb_calls, server_.flush_calls};
}

void Feed::assume(const Identity &identity) {
	if (seen_server_ || identity.run_id.empty())
		return;
	server_.run_id = identity.run_id;
	server_.replication_id = identity.replication_id;
	server_.swapdb_calls = identity.swapdb_calls;
	server_.flush_calls = identity.flush_calls;
	seen_server_ = true;
}

bool Feed::confirm() {
	require_connected();
	return guarded([this] {
		wait_for_pong();
		wait_for_pong();
		poll(kConfirmingSections);
		see_evictions();
		return (gap_ & kGapBreaksContinuity) == 0;
	});
}

std::optional<std::chrono::microseconds> Feed::clock_difference() const {
	return clock_.difference();
}

// What INFO says over R in the first sections of the list; the rest as it was. Throws when Redis
// does not hold all its data.
ServerInfo Feed::read_info(std::size_t sections) {
	for (std::size_t i = 0; i < sections; i++)
		reader_->append({"INFO", kAllSections[i]});
	ServerInfo info = server_;
	info.flush_calls = info.swapdb_calls = 0;
	if (sections >= kPolledSections)
		info.database_keys = 0;
	for (std::size_t i = 0; i < sections; i++) {
		const ReplyPtr text = reader_->read_reply();
		if (is_error(*text))
			throw server_error(*text, "INFO", Show::text);
		parse_info(reply_text(*text), endpoint_.database, &info);
	}
	if (info.loading || info.async_loading)
		throw Error(ErrorKind::server, "Redis is loading its data", "LOADING");
	if (!info.ready())
		throw Error(ErrorKind::server, "Redis is a replica without its primary", "MASTERDOWN");
	return info;
}

// R at a new connection: it must be the server of S; what happened while nobody listened is a gap.
void Feed::meet_server(const std::string &run_id) {
	const ServerInfo last = server_;
	const bool seen = seen_server_;
	server_ = ServerInfo{};
	ServerInfo now;
	try {
		now = read_info(kAllSections.size());
	} catch (...) {
		server_ = last;
		throw;
	}
	server_ = last;
	if (now.run_id.empty())
		throw Error(ErrorKind::unsupported, "INFO of Redis names no run id");
	if (now.run_id != run_id)
		throw Error(ErrorKind::closed, "two connections reached two different Redis servers");
	if (seen && (now.run_id != last.run_id || now.replication_id != last.replication_id)) {
		note_gap(kGapIdentity);
	} else if (seen) {
		if (now.swapdb_calls != last.swapdb_calls)
			note_gap(kGapSwapped);
		if (now.flush_calls != last.flush_calls)
			note_gap(kGapFlushed);
	}
	server_ = std::move(now);
	seen_server_ = true;
	polled_ = Clock::now();
	counters_.database_keys = server_.database_keys;
	clock_.reset();
	for (int i = 0; i < kClockReadings; i++)
		clock_.measure(*reader_);
}

// Once a second asks R who it is; hints cannot tell a swap or a change of replication.
void Feed::poll_if_due() {
	if (Clock::now() - polled_ >= limits_.poll_interval)
		poll_now();
}

void Feed::poll_now() {
	poll(kPolledSections);
	polled_ = Clock::now();
	counters_.database_keys = server_.database_keys;
	clock_.measure(*reader_);
	if (++polls_ % kAnnouncementPolls == 0)
		refresh_announcements();
}

void Feed::poll(std::size_t sections) {
	settle();
	ServerInfo now = read_info(sections);
	if (now.run_id != server_.run_id)
		throw Error(ErrorKind::closed, "another Redis answers on the same connection");
	if (now.role != server_.role)
		throw Error(ErrorKind::closed, "the replication role of Redis changed");
	if (now.replication_id != server_.replication_id)
		note_gap(kGapIdentity);
	if (has_grown(server_.swapdb_calls, now.swapdb_calls))
		note_gap(kGapSwapped);
	if (mode_ != Mode::tracking && has_grown(server_.flush_calls, now.flush_calls))
		note_gap(kGapFlushed); // tracking says so by itself
	server_ = std::move(now);
}

// One PING through S whose PONG, and all that came before it, has been taken in.
void Feed::wait_for_pong() {
	send_ping();
	const std::uint64_t awaited = ping_number_;
	const Clock::time_point deadline = Clock::now() + endpoint_.command_timeout;
	while (pong_number_ < awaited) {
		drain();
		if (pong_number_ >= awaited)
			return;
		const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
		if (left <= milliseconds::zero())
			throw Error(ErrorKind::timeout, "Redis did not answer PING in time");
		if (waiter_.wait(subscriber_->fd(), false, left) == Wake::interrupted)
			throw Error(ErrorKind::interrupted, "interrupted while waiting for Redis");
	}
}

// How long until a PING, its deadline or an INFO is due.
milliseconds Feed::until_chores() const {
	const milliseconds now = since_epoch(Clock::now());
	const milliseconds ping_after = ping_number_ != pong_number_
		? endpoint_.command_timeout + milliseconds{1}
		: limits_.ping_interval;
	return std::min(core::until_due(now, since_epoch(ping_sent_), ping_after),
			   core::until_due(now, since_epoch(polled_), limits_.poll_interval)) +
		milliseconds{1};
}

} // namespace session_store::redis
