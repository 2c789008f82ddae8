// Reading one batch of dirty keys: sizes first, then value and expiry in one transaction each.
//
// STRLEN first bounds what one reply can bring: small values share an exchange of some megabytes, a
// large one goes alone, and of one larger than the store can hold only the head is read. A batch
// that would hold more than its share of memory is cut, the rest stays dirty.
//
// A key counts as gone only on nil and "no such key" (-2) in the same EXEC; nil with an expiry, or
// with none (-1), is a key of another type.

#include <algorithm>
#include <utility>

#include "core/text.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr long long kNoSuchKey = -2;
constexpr std::size_t kItemBytes = 160; // what a key costs in a reply beside its value
constexpr std::size_t kReplySlack = std::size_t{32} << 20; // values may grow after STRLEN

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

} // namespace

std::span<const Item> Feed::fetch(std::size_t max) {
	require_connected();
	put_back_all();
	try {
		return guarded([this, max]() -> std::span<const Item> {
			drain();
			poll_if_due();
			if (dirty_.take(std::min(max, kMaxFetch)) == 0)
				return {};
			read_batch();
			return items_;
		});
	} catch (...) {
		put_back_all();
		throw;
	}
}

void Feed::put_back(std::size_t index) {
	dirty_.put_back(index);
}

void Feed::put_back_all() {
	release_values();
	dirty_.put_back_all();
}

void Feed::commit() {
	release_values();
	dirty_.commit();
}

void Feed::read_batch() {
	ask_sizes();
	dirty_.untake_from(fit_batch());
	const std::size_t count = dirty_.batch_size();
	items_.resize(count);
	for (std::size_t i = 0; i < count; i++) {
		items_[i].key = dirty_.key(i);
		core::sid_of_key(items_[i].key, prefix_, &items_[i].sid);
	}
	for (std::size_t begin = 0; begin < count;) {
		const std::size_t end = exchange_end(begin, count);
		if (is_too_large(begin))
			read_head(begin);
		else
			read_exchange(begin, end);
		begin = end;
		drain();
	}
	ask_types();
	counters_.fetched += count;
	for (const Item &item : items_)
		counters_.fetched_bytes += item.value.size();
}

void Feed::ask_sizes() {
	const std::size_t count = dirty_.batch_size();
	sizes_.assign(count, 0);
	for (std::size_t i = 0; i < count; i++)
		reader_->append({"STRLEN", dirty_.key(i)});
	for (std::size_t i = 0; i < count; i++) {
		const ReplyPtr reply = reader_->read_reply();
		if (is_integer(*reply) && reply->integer >= 0)
			sizes_[i] = static_cast<std::uint64_t>(reply->integer);
		else if (is_error(*reply) && error_code(*reply) != "WRONGTYPE")
			throw server_error(*reply, "to read sessions", Show::code_only);
		else if (!is_error(*reply))
			unexpected("STRLEN");
	}
}

// Bytes that reading this key brings.
std::size_t Feed::read_cost(std::size_t index) const {
	const std::size_t value =
		is_too_large(index) ? limits_.too_large_head : static_cast<std::size_t>(sizes_[index]);
	return value + kItemBytes;
}

// How many keys of the batch fit into batch_bytes; at least one.
std::size_t Feed::fit_batch() const {
	std::size_t bytes = 0;
	for (std::size_t i = 0; i < sizes_.size(); i++) {
		bytes += read_cost(i);
		if (i > 0 && bytes > limits_.batch_bytes)
			return i;
	}
	return sizes_.size();
}

// Where the exchange that starts at `begin` ends.
std::size_t Feed::exchange_end(std::size_t begin, std::size_t end) const {
	const auto alone = [this](std::size_t i) {
		return sizes_[i] > limits_.single_bytes || is_too_large(i);
	};
	if (alone(begin))
		return begin + 1;
	std::size_t bytes = read_cost(begin);
	std::size_t next = begin + 1;
	for (; next < end && !alone(next); next++) {
		bytes += read_cost(next);
		if (bytes > limits_.exchange_bytes)
			break;
	}
	return next;
}

void Feed::append_expiry_reads(std::size_t begin, std::size_t end) {
	for (std::size_t i = begin; i < end; i++)
		reader_->append({has_pexpiretime_ ? "PEXPIRETIME" : "PTTL", items_[i].key});
}

// The reply of EXEC after MULTI and that many queued commands; one that is nil leaves the items as
// errors, to be read again.
ReplyPtr Feed::read_exec(std::size_t queued) {
	for (std::size_t i = 0; i <= queued; i++) {
		const ReplyPtr reply = reader_->read_reply();
		if (is_error(*reply))
			throw server_error(*reply, "to read sessions", Show::code_only);
		if (reply_text(*reply) != (i == 0 ? "OK" : "QUEUED"))
			unexpected("MULTI");
	}
	ReplyPtr reply = reader_->read_reply();
	if (is_error(*reply))
		throw server_error(*reply, "to read sessions", Show::code_only);
	if (!is_nil(*reply) && (!is_array(*reply) || reply->elements != queued))
		unexpected("EXEC");
	return reply;
}

void Feed::read_exchange(std::size_t begin, std::size_t end) {
	const std::size_t time_reads = has_pexpiretime_ ? 0 : 1;
	std::vector<std::string_view> mget{"MGET"};
	std::size_t expected = 0;
	for (std::size_t i = begin; i < end; i++) {
		mget.push_back(items_[i].key);
		expected += read_cost(i);
	}
	reader_->append({"MULTI"});
	if (time_reads != 0)
		reader_->append({"TIME"});
	reader_->append(mget);
	append_expiry_reads(begin, end);
	reader_->append({"EXEC"});
	reader_->set_reply_limit(expected + kReplySlack);
	ReplyPtr exec = read_exec(time_reads + 1 + (end - begin));
	reader_->set_reply_limit(Connection::kDefaultReplyLimit);
	if (is_nil(*exec))
		return;
	const std::int64_t now_ms = time_reads != 0 ? time_micros(*exec->element[0]) / 1000 : 0;
	const redisReply &values = *exec->element[time_reads];
	if (is_error(values))
		return;
	if (!is_array(values) || values.elements != end - begin)
		unexpected("MGET");
	for (std::size_t i = begin; i < end; i++)
		set_item(i, *values.element[i - begin], *exec->element[time_reads + 1 + i - begin], now_ms);
	replies_.push_back(std::move(exec));
}

// A value too large to be held: its first bytes, and its size anew.
void Feed::read_head(std::size_t index) {
	const std::string last = std::to_string(limits_.too_large_head - 1);
	const std::string_view key = items_[index].key;
	const std::size_t time_reads = has_pexpiretime_ ? 0 : 1;
	reader_->append({"MULTI"});
	if (time_reads != 0)
		reader_->append({"TIME"});
	reader_->append({"GETRANGE", key, "0", last});
	append_expiry_reads(index, index + 1);
	reader_->append({"STRLEN", key});
	reader_->append({"EXEC"});
	ReplyPtr exec = read_exec(time_reads + 3);
	if (is_nil(*exec))
		return;
	const std::int64_t now_ms = time_reads != 0 ? time_micros(*exec->element[0]) / 1000 : 0;
	const redisReply &size = *exec->element[time_reads + 2];
	if (!is_integer(size) || static_cast<std::uint64_t>(size.integer) <= limits_.max_value)
		return; // it changed meanwhile: read it again
	set_item(index, *exec->element[time_reads], *exec->element[time_reads + 1], now_ms);
	Item &item = items_[index];
	if (item.kind == ItemKind::value) {
		item.kind = ItemKind::too_large;
		item.size = static_cast<std::uint64_t>(size.integer);
	}
	replies_.push_back(std::move(exec));
}

// Judges one key by what one EXEC said of it. now_ms is Redis' time where expiry is relative.
void Feed::set_item(
	std::size_t index, const redisReply &value, const redisReply &expiry, std::int64_t now_ms) {
	Item &item = items_[index];
	if (!is_integer(expiry) || expiry.integer < kNoSuchKey)
		return;
	const bool exists = expiry.integer != kNoSuchKey;
	item.expire_ms = expiry.integer < 0 ? kNoExpiry : expiry.integer + now_ms;
	if (is_string(value) && exists) {
		item.kind = ItemKind::value;
		item.value = reply_text(value);
		item.size = item.value.size();
	} else if (is_nil(value)) {
		item.kind = exists ? ItemKind::other_type : ItemKind::absent;
	}
}

// Names the types. A key that is a string, or gone, by now changed meanwhile: to be read again.
void Feed::ask_types() {
	std::size_t asked = 0;
	for (const Item &item : items_)
		if (item.kind == ItemKind::other_type) {
			reader_->append({"TYPE", item.key});
			asked++;
		}
	for (std::size_t i = 0; asked > 0; i++) {
		Item &item = items_[i];
		if (item.kind != ItemKind::other_type)
			continue;
		asked--;
		ReplyPtr reply = reader_->read_reply();
		item.type_name = is_error(*reply) ? std::string_view{} : reply_text(*reply);
		if (item.type_name.empty() || item.type_name == "string" || item.type_name == "none") {
			item.kind = ItemKind::error;
			item.type_name = {};
		} else {
			replies_.push_back(std::move(reply));
		}
	}
}

void Feed::release_values() noexcept {
	items_.clear();
	replies_.clear();
}

} // namespace session_store::redis
