// Reading batches of dirty keys, value and expiry of each in one transaction.
//
// A few exchanges read a batch, but of each value no more than small_bytes, so that their replies
// are bounded whatever Redis holds; they are sent ahead, while the batch before is applied. Values
// that are longer are read afterwards: STRLEN bounds what one reply can bring, moderate ones share
// an exchange of some megabytes, a large one goes alone, and of one larger than the store can hold
// only the head is read. A batch that would hold more than its share of memory is cut, the rest
// stays dirty.
//
// A key counts as gone only on "nothing" and "no such key" (-2) in the same EXEC; nothing with an
// expiry, or with none (-1), is a key of another type.

#include <algorithm>
#include <utility>

#include "core/text.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr long long kNoSuchKey = -2;
constexpr std::int64_t kLastExpiry = kNoExpiry / 2; // the sum of two of them is still a number
constexpr std::size_t kItemBytes = 160;             // what a key costs in a reply beside its value
constexpr std::size_t kReplySlack = std::size_t{32} << 20; // values may grow after STRLEN

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

// How a value was read: GETRANGE answers "" where there is none, and an error for another type.
enum class Read : std::uint8_t { range, whole };

// Judges one key by what one EXEC said of it. now_ms is Redis' time where expiry is relative.
void set_item(
	Item *item, const redisReply &value, const redisReply &expiry, std::int64_t now_ms, Read read) {
	item->kind = ItemKind::error;
	if (!is_integer(expiry) || expiry.integer < kNoSuchKey)
		return;
	const bool exists = expiry.integer != kNoSuchKey;
	const bool nothing =
		is_nil(value) || (read == Read::range && is_string(value) && reply_text(value).empty());
	const bool other = is_nil(value) ||
		(read == Read::range && is_error(value) && error_code(value) == "WRONGTYPE");
	item->expire_ms =
		expiry.integer < 0 || expiry.integer > kLastExpiry ? kNoExpiry : expiry.integer + now_ms;
	if (is_string(value) && exists) {
		item->kind = ItemKind::value;
		item->value = reply_text(value);
		item->size = item->value.size();
	} else if (nothing && !exists) {
		item->kind = ItemKind::absent;
	} else if (other && exists) {
		item->kind = ItemKind::other_type;
	}
}

} // namespace

std::span<const Item> Feed::fetch(std::size_t max) {
	put_back_all();
	require_connected();
	try {
		return guarded([this, max]() -> std::span<const Item> {
			drain();
			poll_if_due();
			if ((gap_ & kGapBreaksContinuity) != 0)
				forget_read_ahead();
			if (!prepare(max))
				return {};
			send_batch();
			if (awaits(Pending::batch))
				settle();
			std::swap(current_, next_);
			dirty_.advance();
			if (dirty_.batch_size() > max) {
				dirty_.untake_from(max);
				current_.items.resize(max);
			}
			read_long_values();
			ask_types();
			see_evictions();
			counters_.fetched += current_.items.size();
			drop_echoes();
			for (const Item &item : current_.items)
				counters_.fetched_bytes += item.value.size();
			return current_.items;
		});
	} catch (...) {
		put_back_all();
		throw;
	}
}

void Feed::prefetch(std::size_t max) {
	require_connected();
	guarded([this, max] {
		if (next_.items.empty() && prepare(max))
			send_batch();
	});
}

void Feed::put_back(std::size_t index) {
	dirty_.put_back(index);
}

void Feed::put_back_all() {
	give_up_pushes();
	current_.release();
	dirty_.put_back_all();
}

void Feed::commit() {
	give_up_pushes();
	current_.release();
	dirty_.commit();
}

// What was read ahead is of a Redis before the gap: read it again.
void Feed::forget_read_ahead() {
	settle();
	next_.release();
}

// Chooses the next batch, unless there is one. False when nothing is dirty.
bool Feed::prepare(std::size_t max) {
	const std::size_t fitting = limits_.batch_bytes / (limits_.small_bytes + kItemBytes);
	const std::size_t count = std::min({max, kMaxFetch, std::max<std::size_t>(fitting, 1)});
	return dirty_.prepare(count) > 0;
}

// Asks for what is prepared, unless that has been done.
void Feed::send_batch() {
	if (!next_.items.empty() || awaits(Pending::batch))
		return;
	const std::string last = std::to_string(limits_.small_bytes); // one byte more than a small one
	for (std::size_t from = 0; from < dirty_.prepared(); from += exchange_keys()) {
		const std::size_t to = std::min(from + exchange_keys(), dirty_.prepared());
		reader_->append({"MULTI"});
		if (!has_pexpiretime_)
			reader_->append({"TIME"});
		for (std::size_t i = from; i < to; i++) {
			reader_->append({"GETRANGE", dirty_.prepared_key(i), "0", last});
			append_expiry_read(dirty_.prepared_key(i));
		}
		reader_->append({"EXEC"});
	}
	pending_.push_back({Pending::batch, dirty_.prepared()});
	reader_->send_some();
}

// How many keys one exchange of a batch reads.
std::size_t Feed::exchange_keys() const {
	const std::size_t fitting = limits_.exchange_bytes / (limits_.small_bytes + kItemBytes);
	return std::clamp<std::size_t>(fitting, 1, kMaxExchange);
}

void Feed::receive_batch() {
	const std::size_t count = dirty_.prepared();
	next_.release();
	next_.items.resize(count);
	for (std::size_t i = 0; i < count; i++) {
		next_.items[i].key = dirty_.prepared_key(i);
		core::sid_of_key(next_.items[i].key, prefix_, &next_.items[i].sid);
	}
	for (std::size_t from = 0; from < count; from += exchange_keys())
		receive_exchange(from, std::min(exchange_keys(), count - from));
}

void Feed::receive_exchange(std::size_t from, std::size_t count) {
	const std::size_t time_reads = has_pexpiretime_ ? 0 : 1;
	reader_->set_reply_limit(count * (limits_.small_bytes + kItemBytes) + kReplySlack);
	ReplyPtr exec = read_exec(time_reads + 2 * count);
	reader_->set_reply_limit(Connection::kDefaultReplyLimit);
	if (is_nil(*exec))
		return;
	const std::int64_t now_ms = time_reads != 0 ? time_micros(*exec->element[0]) / 1000 : 0;
	for (std::size_t i = 0; i < count; i++)
		set_item(&next_.items[from + i], *exec->element[time_reads + 2 * i],
			*exec->element[time_reads + 2 * i + 1], now_ms, Read::range);
	next_.replies.push_back(std::move(exec));
}

// Reads the rest of the values of which only the start has been read.
void Feed::read_long_values() {
	std::vector<std::size_t> longs;
	sizes_.clear();
	for (std::size_t i = 0; i < current_.items.size(); i++) {
		Item &item = current_.items[i];
		sizes_.push_back(item.value.size());
		if (item.kind != ItemKind::value || item.value.size() <= limits_.small_bytes)
			continue;
		longs.push_back(i);
		item.kind = ItemKind::error; // until it has been read
		item.value = {};
	}
	if (longs.empty())
		return;
	settle();
	ask_sizes(longs);
	const std::size_t fitting = fit_batch();
	dirty_.untake_from(fitting);
	current_.items.resize(fitting);
	longs.erase(std::lower_bound(longs.begin(), longs.end(), fitting), longs.end());
	for (std::span<const std::size_t> left(longs); !left.empty();) {
		const std::size_t count = exchange_size(left);
		if (is_too_large(left[0]))
			read_head(left[0]);
		else
			read_exchange(left.first(count));
		left = left.subspan(count);
		drain();
	}
}

void Feed::ask_sizes(std::span<const std::size_t> indexes) {
	for (const std::size_t i : indexes)
		reader_->append({"STRLEN", current_.items[i].key});
	for (const std::size_t i : indexes) {
		const ReplyPtr reply = reader_->read_reply();
		sizes_[i] = 0;
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

// How many of these the next exchange reads.
std::size_t Feed::exchange_size(std::span<const std::size_t> indexes) const {
	const auto alone = [this](std::size_t i) {
		return sizes_[i] > limits_.single_bytes || is_too_large(i);
	};
	if (alone(indexes[0]))
		return 1;
	std::size_t bytes = read_cost(indexes[0]);
	std::size_t count = 1;
	for (; count < indexes.size() && !alone(indexes[count]); count++) {
		bytes += read_cost(indexes[count]);
		if (bytes > limits_.exchange_bytes)
			break;
	}
	return count;
}

void Feed::append_expiry_read(std::string_view key) {
	reader_->append({has_pexpiretime_ ? "PEXPIRETIME" : "PTTL", key});
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

void Feed::read_exchange(std::span<const std::size_t> indexes) {
	const std::size_t time_reads = has_pexpiretime_ ? 0 : 1;
	std::vector<std::string_view> mget{"MGET"};
	std::size_t expected = 0;
	for (const std::size_t i : indexes) {
		mget.push_back(current_.items[i].key);
		expected += read_cost(i);
	}
	reader_->append({"MULTI"});
	if (time_reads != 0)
		reader_->append({"TIME"});
	reader_->append(mget);
	for (const std::size_t i : indexes)
		append_expiry_read(current_.items[i].key);
	reader_->append({"EXEC"});
	reader_->set_reply_limit(expected + kReplySlack);
	ReplyPtr exec = read_exec(time_reads + 1 + indexes.size());
	reader_->set_reply_limit(Connection::kDefaultReplyLimit);
	if (is_nil(*exec))
		return;
	const std::int64_t now_ms = time_reads != 0 ? time_micros(*exec->element[0]) / 1000 : 0;
	const redisReply &values = *exec->element[time_reads];
	if (is_error(values))
		return;
	if (!is_array(values) || values.elements != indexes.size())
		unexpected("MGET");
	for (std::size_t i = 0; i < indexes.size(); i++)
		set_item(&current_.items[indexes[i]], *values.element[i],
			*exec->element[time_reads + 1 + i], now_ms, Read::whole);
	current_.replies.push_back(std::move(exec));
}

// A value too large to be held: its first bytes, and its size anew.
void Feed::read_head(std::size_t index) {
	const std::string last = std::to_string(limits_.too_large_head - 1);
	Item &item = current_.items[index];
	const std::string_view key = item.key;
	const std::size_t time_reads = has_pexpiretime_ ? 0 : 1;
	reader_->append({"MULTI"});
	if (time_reads != 0)
		reader_->append({"TIME"});
	reader_->append({"GETRANGE", key, "0", last});
	append_expiry_read(key);
	reader_->append({"STRLEN", key});
	reader_->append({"EXEC"});
	ReplyPtr exec = read_exec(time_reads + 3);
	if (is_nil(*exec))
		return;
	const std::int64_t now_ms = time_reads != 0 ? time_micros(*exec->element[0]) / 1000 : 0;
	const redisReply &size = *exec->element[time_reads + 2];
	if (!is_integer(size) || static_cast<std::uint64_t>(size.integer) <= limits_.max_value)
		return; // it changed meanwhile: read it again
	set_item(
		&item, *exec->element[time_reads], *exec->element[time_reads + 1], now_ms, Read::range);
	if (item.kind == ItemKind::value) {
		item.kind = ItemKind::too_large;
		item.size = static_cast<std::uint64_t>(size.integer);
	}
	current_.replies.push_back(std::move(exec));
}

// Names the types. A key that is a string, or gone, by now changed meanwhile: to be read again.
void Feed::ask_types() {
	std::size_t asked = 0;
	for (const Item &item : current_.items)
		if (item.kind == ItemKind::other_type) {
			settle();
			reader_->append({"TYPE", item.key});
			asked++;
		}
	for (std::size_t i = 0; asked > 0; i++) {
		Item &item = current_.items[i];
		if (item.kind != ItemKind::other_type)
			continue;
		asked--;
		ReplyPtr reply = reader_->read_reply();
		item.type_name = is_error(*reply) ? std::string_view{} : reply_text(*reply);
		if (item.type_name.empty() || item.type_name == "string" || item.type_name == "none") {
			item.kind = ItemKind::error;
			item.type_name = {};
		} else {
			current_.replies.push_back(std::move(reply));
		}
	}
}

// What is absent may have been evicted; the event may also have come after the key was taken.
void Feed::see_evictions() {
	for (std::size_t i = 0; i < current_.items.size(); i++)
		if (current_.items[i].kind == ItemKind::absent)
			current_.items[i].evicted = dirty_.evicted(i);
}

// Of what is left, none holds what was last pushed as far as we know: whatever is done about it,
// the next push is another one.
void Feed::drop_echoes() {
	std::vector<std::size_t> echoes;
	for (std::size_t i = 0; i < current_.items.size(); i++)
		if (is_echo(i))
			echoes.push_back(i);
	if (echoes.empty())
		return;
	counters_.echoes += echoes.size();
	dirty_.drop(echoes);
	std::size_t kept = 0;
	auto next = echoes.begin();
	for (std::size_t i = 0; i < current_.items.size(); i++)
		if (next != echoes.end() && *next == i)
			next++;
		else
			current_.items[kept++] = current_.items[i];
	current_.items.resize(kept);
}

// Only a hint can be an echo: what a comparison asks for it is shown. A gap that is not answered
// yet may have changed anything.
bool Feed::is_echo(std::size_t index) {
	const Item &item = current_.items[index];
	const bool absent = item.kind == ItemKind::absent;
	if (gap_ != kGapNone || !dirty_.only_hinted(index) || item.evicted ||
		(!absent && item.kind != ItemKind::value)) {
		echoes_.forget(item.key);
		return false;
	}
	const bool echo = echoes_.take(item.key, {absent, item.expire_ms, item.value});
	if (echo && !absent)
		note_seen(item.sid);
	return echo;
}

} // namespace session_store::redis
