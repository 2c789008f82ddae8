// A comparison: the SCAN, one call ahead of what is asked for, and what it did not see.

#include <algorithm>
#include <utility>

#include "core/text.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr std::string_view kScanCount = "250";
// How often a feed that has to do without tracking looks whether Redis lets it by now.
constexpr std::chrono::minutes kRetryTracking{5};

} // namespace

unsigned Feed::begin_comparison() {
	require_connected();
	if (mode_ != Mode::tracking && Clock::now() - connected_at_ > kRetryTracking)
		connect();
	// Who answers now, with its flushes and swaps, is whom the comparison is about: see identity().
	guarded([this] {
		forget_read_ahead();
		poll_now();
	});
	seen_.emplace(random_seed(), limits_.filter_bytes);
	cursor_ = "0";
	scan_over_ = false;
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
		if (scan_has_room()) {
			send_scan();
			settle();
		}
		if (scan_over_)
			finish_scan();
		else if (scan_has_room())
			send_scan(); // Redis looks for the next ones while these are read
		return phase_ == Phase::scanning;
	});
}

bool Feed::scan_has_room() const {
	return !scan_over_ &&
		dirty_.size() <= std::min(limits_.scan_backlog, limits_.dirty.max_keys / 2);
}

// Sends one SCAN, unless one is under way.
void Feed::send_scan() {
	if (awaits(Pending::scan))
		return;
	if (prefix_.empty())
		reader_->append({"SCAN", cursor_, "COUNT", kScanCount});
	else
		reader_->append({"SCAN", cursor_, "MATCH", pattern_, "COUNT", kScanCount});
	pending_.push_back({Pending::scan, 1});
	reader_->send_some();
}

void Feed::receive_scan() {
	const ReplyPtr reply = reader_->read_reply();
	if (is_error(*reply))
		throw server_error(*reply, "SCAN", Show::text);
	const auto unexpected = [] {
		throw Error(ErrorKind::protocol, "Redis gave an unexpected answer to SCAN");
	};
	if (!is_array(*reply) || reply->elements != 2 || !is_string(*reply->element[0]) ||
		!is_array(*reply->element[1]))
		unexpected();
	if (phase_ != Phase::scanning)
		return; // of a comparison that was given up
	const Clock::time_point now = Clock::now();
	const redisReply &keys = *reply->element[1];
	for (std::size_t i = 0; i < keys.elements; i++) {
		const std::string_view key = reply_text(*keys.element[i]);
		std::string_view sid;
		if (!is_string(*keys.element[i]) || !core::sid_of_key(key, prefix_, &sid))
			unexpected();
		if (!is_ours(key))
			continue;
		if (seen_->insert(sid))
			counters_.scanned++;
		dirty_.mark(key, now);
	}
	if (dirty_.overflowed())
		note_gap(kGapOverflow);
	cursor_ = reply_text(*reply->element[0]);
	scan_over_ = cursor_ == "0";
}

void Feed::finish_scan() {
	phase_ = Phase::walking;
	const ReplyPtr text = settled_reader().command_ok({"INFO", "keyspace"}, "INFO", Show::text);
	ServerInfo info;
	parse_info(reply_text(*text), endpoint_.database, &info);
	counters_.database_keys = info.database_keys;
	counters_.prefix_keys = static_cast<std::int64_t>(counters_.scanned);
	counters_.other_keys =
		std::max<std::int64_t>(counters_.database_keys - counters_.prefix_keys, 0);
}

void Feed::rescan() {
	require_connected();
	if (phase_ != Phase::walking)
		return;
	cursor_ = "0";
	scan_over_ = false;
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

} // namespace session_store::redis
