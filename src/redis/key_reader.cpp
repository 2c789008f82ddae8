// Reading many keys: SCAN, sizes and values, each a step ahead of the next.

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/glob.h"
#include "core/text.h"
#include "redis/key_reader.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr long long kNoSuchKey = -2;
constexpr std::size_t kGroupKeys = 250;
constexpr std::string_view kScanCount = "250";
constexpr std::string_view kCountingCount = "1000";
constexpr std::string_view kSampleCount = "10"; // keys next to each other say little
constexpr std::size_t kSampleKeys = 10;
constexpr std::size_t kAheadGroups = 4;
constexpr std::size_t kMostSamplePages = 20; // for each page of keys that is wanted
constexpr std::size_t kKeyBytes = 160;
constexpr std::size_t kReplySlack = std::size_t{32} << 20;
constexpr std::string_view kLeases = "session_store:lease:";

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

std::int64_t time_millis(const redisReply &reply) {
	std::int64_t parts[2] = {0, 0};
	if (!is_array(reply) || reply.elements != 2)
		unexpected("TIME");
	for (std::size_t i = 0; i < 2; i++) {
		const std::string_view text = reply_text(*reply.element[i]);
		std::from_chars(text.data(), text.data() + text.size(), parts[i]);
	}
	return parts[0] * 1000 + parts[1] / 1000;
}

void check_scan(const redisReply &reply) {
	if (is_error(reply))
		throw server_error(reply, "SCAN", Show::text);
	if (!is_array(reply) || reply.elements != 2 || !is_array(*reply.element[1]))
		unexpected("SCAN");
}

} // namespace

KeyReader::KeyReader(Connection &connection, std::string prefix, Limits limits)
	: connection_(connection), prefix_(std::move(prefix)), pattern_(core::glob_for_prefix(prefix_)),
	  limits_(limits) {
	// A probe, since what answers as a version need not know the command.
	const ReplyPtr probe =
		connection_.command({"PEXPIRETIME", prefix_.empty() ? "probe" : prefix_});
	has_pexpiretime_ = is_integer(*probe);
}

void KeyReader::start_scan() {
	cursors_ = {"0"};
	to_the_end_ = true;
	scanned_ = 0;
}

void KeyReader::start_sample(std::size_t count) {
	const ReplyPtr size = connection_.command({"DBSIZE"});
	if (is_integer(*size) && std::cmp_less_equal(size->integer, count)) {
		start_scan();
		return;
	}
	// A cursor of SCAN is a place in the table: any number is one.
	std::random_device seed;
	std::mt19937_64 random(seed());
	const std::size_t pages = count / kSampleKeys + 1;
	cursors_.clear();
	for (std::size_t i = 0; i < pages * kMostSamplePages; i++)
		cursors_.push_back(std::to_string(random() >> 1));
	to_the_end_ = false;
	sample_left_ = count;
	scanned_ = 0;
}

void KeyReader::add(std::string_view sid) {
	named_.push_back(prefix_ + std::string(sid));
	if (named_.size() == kGroupKeys)
		unsized_.push_back({std::exchange(named_, {}), {}});
}

bool KeyReader::next(std::span<const Item> *items) {
	if (!named_.empty())
		unsized_.push_back({std::exchange(named_, {}), {}});
	items_.clear();
	reply_.reset();
	if (!scan_sent_ && !sizes_sent_ && !values_sent_)
		send();
	if (!scan_sent_ && !sizes_sent_ && !values_sent_)
		return false;
	receive();
	send();
	*items = items_;
	return true;
}

bool KeyReader::wants_scan() const noexcept {
	return !cursors_.empty() && unsized_.size() + ready_.size() < kAheadGroups;
}

void KeyReader::send() {
	if (!ready_.empty())
		send_values();
	if (!unsized_.empty())
		send_sizes();
	if (wants_scan())
		send_scan();
	connection_.send_some();
}

void KeyReader::receive() {
	if (std::exchange(values_sent_, false))
		receive_values();
	if (std::exchange(sizes_sent_, false))
		receive_sizes();
	if (std::exchange(scan_sent_, false))
		receive_scan();
}

void KeyReader::send_scan() {
	connection_.append({"SCAN", cursors_.front(), "MATCH", pattern_, "COUNT",
		to_the_end_ ? kScanCount : kSampleCount});
	cursors_.pop_front();
	scan_sent_ = true;
}

void KeyReader::receive_scan() {
	const ReplyPtr reply = connection_.read_reply();
	check_scan(*reply);
	Group group;
	const redisReply &page = *reply->element[1];
	for (std::size_t i = 0; i < page.elements; i++) {
		const std::string_view key = reply_text(*page.element[i]);
		if (!key.starts_with(prefix_))
			unexpected("SCAN");
		if (!key.starts_with(kLeases))
			group.keys.emplace_back(key);
	}
	scanned_ += group.keys.size();
	if (to_the_end_) {
		const std::string_view cursor = reply_text(*reply->element[0]);
		if (cursor != "0")
			cursors_.emplace_back(cursor);
	} else {
		if (group.keys.size() > sample_left_)
			group.keys.resize(sample_left_);
		sample_left_ -= group.keys.size();
		if (sample_left_ == 0)
			cursors_.clear();
	}
	if (!group.keys.empty())
		unsized_.push_back(std::move(group));
}

void KeyReader::send_sizes() {
	sizing_ = std::move(unsized_.front());
	unsized_.pop_front();
	for (const std::string &key : sizing_.keys)
		connection_.append({"STRLEN", key});
	sizes_sent_ = true;
}

void KeyReader::receive_sizes() {
	for (std::size_t i = 0; i < sizing_.keys.size(); i++) {
		const ReplyPtr reply = connection_.read_reply();
		if (is_error(*reply) && error_code(*reply) != "WRONGTYPE")
			throw server_error(*reply, "to read sessions", Show::code_only);
		sizing_.sizes.push_back(is_integer(*reply) && reply->integer > 0
				? static_cast<std::uint64_t>(reply->integer)
				: 0);
	}
	split(std::move(sizing_));
}

// Into groups that bring a bounded number of bytes.
void KeyReader::split(Group &&group) {
	Group part;
	std::size_t bytes = 0;
	for (std::size_t i = 0; i < group.keys.size(); i++) {
		const std::size_t cost =
			(group.sizes[i] > limits_.max_value ? 0 : group.sizes[i]) + kKeyBytes;
		if (!part.keys.empty() && bytes + cost > limits_.group_bytes) {
			ready_.push_back(std::exchange(part, {}));
			bytes = 0;
		}
		part.keys.push_back(std::move(group.keys[i]));
		part.sizes.push_back(group.sizes[i]);
		bytes += cost;
	}
	if (!part.keys.empty())
		ready_.push_back(std::move(part));
}

void KeyReader::send_values() {
	reading_ = std::move(ready_.front());
	ready_.pop_front();
	std::vector<std::string_view> values{"MGET"};
	for (std::size_t i = 0; i < reading_.keys.size(); i++)
		if (reading_.sizes[i] <= limits_.max_value)
			values.push_back(reading_.keys[i]);
	connection_.append({"MULTI"});
	if (!has_pexpiretime_)
		connection_.append({"TIME"});
	if (values.size() > 1)
		connection_.append(values);
	for (const std::string &key : reading_.keys)
		connection_.append({has_pexpiretime_ ? "PEXPIRETIME" : "PTTL", key});
	connection_.append({"EXEC"});
	values_sent_ = true;
}

// The reply of EXEC after the commands of send_values().
void KeyReader::receive_exec(std::size_t queued) {
	std::size_t bytes = 0;
	for (const std::uint64_t size : reading_.sizes)
		bytes += size <= limits_.max_value ? size : 0;
	connection_.set_reply_limit(bytes + reading_.keys.size() * kKeyBytes + kReplySlack);
	for (std::size_t i = 0; i <= queued; i++) {
		const ReplyPtr reply = connection_.read_reply();
		if (is_error(*reply))
			throw server_error(*reply, "to read sessions", Show::code_only);
	}
	reply_ = connection_.read_reply();
	connection_.set_reply_limit(Connection::kDefaultReplyLimit);
	if (is_error(*reply_))
		throw server_error(*reply_, "to read sessions", Show::code_only);
	if (!is_nil(*reply_) && (!is_array(*reply_) || reply_->elements != queued))
		unexpected("EXEC");
}

void KeyReader::receive_values() {
	const auto asked = static_cast<std::size_t>(std::count_if(reading_.sizes.begin(),
		reading_.sizes.end(), [this](std::uint64_t size) { return size <= limits_.max_value; }));
	const std::size_t before = (has_pexpiretime_ ? 0 : 1) + (asked > 0 ? 1 : 0);
	receive_exec(before + reading_.keys.size());
	shown_ = std::move(reading_);
	items_.resize(shown_.keys.size());
	for (std::size_t i = 0; i < items_.size(); i++) {
		items_[i].key = shown_.keys[i];
		items_[i].sid = items_[i].key.substr(prefix_.size());
		items_[i].size = shown_.sizes[i];
	}
	if (is_nil(*reply_))
		return; // they stay errors: to be read again
	const std::int64_t now_ms = has_pexpiretime_ ? 0 : time_millis(*reply_->element[0]);
	const redisReply *values = asked > 0 ? reply_->element[before - 1] : nullptr;
	if (values != nullptr && (!is_array(*values) || values->elements != asked))
		unexpected("MGET");
	std::size_t value = 0;
	for (std::size_t i = 0; i < items_.size(); i++) {
		const bool is_asked = items_[i].size <= limits_.max_value;
		set_item(&items_[i], is_asked ? values->element[value++] : nullptr,
			*reply_->element[before + i], now_ms);
	}
}

// Judges one key by what one EXEC said of it; `value` is null when it was not asked for.
void KeyReader::set_item(
	Item *item, const redisReply *value, const redisReply &expiry, std::int64_t now_ms) const {
	if (!is_integer(expiry) || expiry.integer < kNoSuchKey)
		return;
	const bool exists = expiry.integer != kNoSuchKey;
	item->expire_ms = expiry.integer < 0 ? kNoExpiry : expiry.integer + now_ms;
	if (!exists) {
		item->kind = ItemKind::absent;
	} else if (value == nullptr) {
		item->kind = ItemKind::too_large;
	} else {
		item->kind = is_string(*value) ? ItemKind::value : ItemKind::other_type;
		item->value = reply_text(*value);
		item->size = item->value.size();
	}
}

std::uint64_t count_keys(Connection &connection, std::string_view prefix) {
	const std::string pattern = core::glob_for_prefix(prefix);
	std::string cursor = "0";
	std::uint64_t count = 0;
	do {
		const ReplyPtr reply =
			connection.command({"SCAN", cursor, "MATCH", pattern, "COUNT", kCountingCount});
		check_scan(*reply);
		const redisReply &page = *reply->element[1];
		for (std::size_t i = 0; i < page.elements; i++)
			count += reply_text(*page.element[i]).starts_with(kLeases) ? 0 : 1;
		cursor = reply_text(*reply->element[0]);
	} while (cursor != "0");
	return count;
}

} // namespace session_store::redis
