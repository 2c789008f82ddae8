// Compare and set.

#include <algorithm>
#include <utility>

#include "redis/conditional_writer.h"
#include "redis/remote_clock.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr std::int64_t kAbsent = -2; // as PEXPIRETIME says it
constexpr std::int64_t kNever = -1;
constexpr std::size_t kWriteBytes = 200; // what a write costs beside its values
constexpr std::size_t kGroup = 32;       // keys watched at once
constexpr std::size_t kReplySlack = std::size_t{16} << 20;
constexpr int kScriptAttempts = 3;
// Of an expiry that is the sum of TIME and PTTL, each cut to the millisecond and read in turn.
constexpr std::int64_t kOldExpirySlackMs = 20;

// ARGV: expiry expected (-2: absent, -1: never, empty: any), expiry wanted (-2: remove, -1: never,
// empty: as it is), and unless the value stays the values expected and wanted. What stays is
// neither sent nor compared: a touch takes half of Redis' time. 1: written, 0: it is another by
// now.
#define SESSION_STORE_COMPARE                                                                      \
	"local h=redis.pcall('GET',k) "                                                                \
	"if type(h)=='table' then "                                                                    \
	"if string.find(h.err,'WRONGTYPE',1,true) then return 0 end return h end "                     \
	"if h~=v then return 0 end "

constexpr std::string_view kScript =
	"local k=KEYS[1] local x,t,v,n=ARGV[1],ARGV[2],ARGV[3],ARGV[4] "
	"if x~='' and redis.call('PEXPIRETIME',k)~=tonumber(x) then return 0 end "
	"if v and x~='-2' then " SESSION_STORE_COMPARE "end "
	"if t=='-2' then if x~='-2' then redis.call('DEL',k) end "
	"elseif not n then if t=='-1' then redis.call('PERSIST',k) "
	"else redis.call('PEXPIREAT',k,t) end "
	"elseif t=='' then redis.call('SET',k,n,'KEEPTTL') "
	"elseif t=='-1' then redis.call('SET',k,n) "
	"else redis.call('SET',k,n,'PXAT',t) end "
	"return 1";

// Compares the expiry always. ARGV: expiry expected, value expected, expiry wanted, value wanted,
// how many milliseconds two readings of the same expiry may differ, and whether the value stays.
constexpr std::string_view kOldScript =
	"if redis.replicate_commands then redis.replicate_commands() end "
	"local k=KEYS[1] local x=redis.call('PTTL',k) local e=tonumber(ARGV[1]) "
	"if x<0 or e<0 then if x~=e then return 0 end else "
	"local c=redis.call('TIME') x=x+c[1]*1000+math.floor(c[2]/1000) "
	"if math.abs(x-e)>tonumber(ARGV[5]) then return 0 end end "
	"local v,t,n,stays=ARGV[2],ARGV[3],ARGV[4],ARGV[6]=='1' "
	"if x~=-2 and not stays then " SESSION_STORE_COMPARE "end "
	"if t=='-2' then if x~=-2 then redis.call('DEL',k) end "
	"elseif stays then if t=='-1' then redis.call('PERSIST',k) "
	"else redis.call('PEXPIREAT',k,t) end "
	"else redis.call('SET',k,n) if t~='-1' then redis.call('PEXPIREAT',k,t) end end "
	"return 1";

#undef SESSION_STORE_COMPARE

std::int64_t expected_expiry(const Item &item) {
	if (item.kind == ItemKind::absent)
		return kAbsent;
	return item.expire_ms == kNoExpiry ? kNever : item.expire_ms;
}

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

} // namespace

ConditionalWriter::ConditionalWriter(Connection &connection, bool has_pexpiretime)
	: connection_(connection), has_pexpiretime_(has_pexpiretime),
	  script_(has_pexpiretime ? kScript : kOldScript) {}

std::size_t ConditionalWriter::Task::bytes() const {
	const std::size_t written = remove || value_stays() ? 0 : push->value.size();
	return kWriteBytes + item->key.size() + item->value.size() + written;
}

bool ConditionalWriter::Task::value_stays() const {
	return !remove && item->kind == ItemKind::value && push->value.data() == item->value.data() &&
		push->value.size() == item->value.size();
}

// Whether a value is written that takes over the expiry of the one before.
bool ConditionalWriter::expiry_stays(const Task &task) const {
	return has_pexpiretime_ && !task.remove && !task.value_stays() &&
		task.item->kind == ItemKind::value && task.push->expire_ms == task.item->expire_ms;
}

bool ConditionalWriter::start(
	std::span<const Item> items, const Push &push, PushResult *result, std::int64_t now_ms) {
	*result = PushResult::refused;
	if (push.item >= items.size())
		return false;
	const Item &item = items[push.item];
	if (item.kind != ItemKind::value && item.kind != ItemKind::absent) {
		if (refusal_.empty())
			refusal_ = "WRONGTYPE";
		return false;
	}
	const Task task{&item, &push, result, push.remove || push.expire_ms <= now_ms};
	if (!ready()) {
		left_.push_back(task);
		return false;
	}
	append_call(task);
	sent_.push_back(task);
	bytes_ += task.bytes();
	return true;
}

void ConditionalWriter::receive(std::size_t count) {
	for (; count > 0; count--) {
		const ReplyPtr reply = connection_.read_reply();
		const Task task = sent_.front();
		sent_.pop_front();
		bytes_ -= task.bytes();
		if (script_.not_run(*reply))
			left_.push_back(task);
		else
			take_answer(task, *reply);
	}
}

void ConditionalWriter::finish(std::string *refusal, std::size_t max_bytes) {
	Tasks chunk;
	std::size_t bytes = 0;
	for (const Task &task : std::exchange(left_, {})) {
		if (!chunk.empty() && bytes + task.bytes() > max_bytes) {
			send(chunk);
			chunk.clear();
			bytes = 0;
		}
		bytes += task.bytes();
		chunk.push_back(task);
	}
	if (!chunk.empty())
		send(chunk);
	*refusal = std::exchange(refusal_, {});
}

void ConditionalWriter::send(const Tasks &tasks) {
	Tasks left = tasks;
	for (int i = 0; i < kScriptAttempts && script_.usable() && !left.empty(); i++)
		left = by_script(left);
	for (std::size_t i = 0; i < left.size(); i += kGroup)
		by_watch(std::span(left).subspan(i, std::min(kGroup, left.size() - i)));
}

// Returns those that Redis did not run.
ConditionalWriter::Tasks ConditionalWriter::by_script(const Tasks &tasks) {
	script_.load(connection_);
	for (const Task &task : tasks)
		append_call(task);
	Tasks left;
	for (const Task &task : tasks) {
		const ReplyPtr reply = connection_.read_reply();
		if (script_.not_run(*reply))
			left.push_back(task);
		else
			take_answer(task, *reply);
	}
	return left;
}

void ConditionalWriter::take_answer(const Task &task, const redisReply &reply) {
	if (is_error(reply))
		refuse(reply);
	else if (is_integer(reply))
		*task.result = reply.integer == 1 ? PushResult::done : PushResult::changed;
	else
		unexpected("a script");
}

void ConditionalWriter::append_call(const Task &task) {
	const std::string expected = std::to_string(expected_expiry(*task.item));
	const std::int64_t wanted = task.push->expire_ms == kNoExpiry ? kNever : task.push->expire_ms;
	const std::string expiry = std::to_string(task.remove ? kAbsent : wanted);
	const std::string_view key = task.item->key;
	const std::string_view old = task.item->value;
	const std::string_view value = task.remove ? std::string_view{} : task.push->value;
	if (!has_pexpiretime_)
		script_.append(connection_, key,
			{expected, old, expiry, value, std::to_string(kOldExpirySlackMs),
				task.value_stays() ? "1" : "0"});
	else if (task.remove)
		script_.append(connection_, key, {expected, expiry, old});
	else if (task.value_stays())
		script_.append(connection_, key, {expected, expiry});
	else if (expiry_stays(task))
		script_.append(connection_, key, {"", "", old, value});
	else
		script_.append(connection_, key, {expected, expiry, old, value});
}

void ConditionalWriter::by_watch(std::span<const Task> group) {
	const std::vector<Task> same = look(group);
	if (!same.empty())
		exec(same);
}

// Watches the keys and returns those that are as they were read; the others have changed.
std::vector<ConditionalWriter::Task> ConditionalWriter::look(std::span<const Task> group) {
	std::vector<std::string_view> watch{"WATCH"};
	std::size_t bytes = kReplySlack;
	for (const Task &task : group) {
		watch.push_back(task.item->key);
		bytes += task.item->value.size();
	}
	connection_.append(watch);
	for (const Task &task : group) {
		connection_.append({"GET", task.item->key});
		if (!has_pexpiretime_)
			connection_.append({"TIME"});
		connection_.append({has_pexpiretime_ ? "PEXPIRETIME" : "PTTL", task.item->key});
	}
	connection_.set_reply_limit(bytes);
	const ReplyPtr watching = connection_.read_reply();
	bool refused = is_error(*watching);
	if (refused)
		refuse(*watching);
	std::vector<Task> same;
	for (const Task &task : group) {
		const ReplyPtr value = connection_.read_reply();
		const ReplyPtr time = has_pexpiretime_ ? nullptr : connection_.read_reply();
		const ReplyPtr expiry = connection_.read_reply();
		const bool wrong_type = is_error(*value) && error_code(*value) == "WRONGTYPE";
		if (is_error(*value) && !wrong_type) {
			refuse(*value);
			refused = true;
		}
		if (is_error(*expiry) || (time && is_error(*time))) {
			refuse(is_error(*expiry) ? *expiry : *time);
			refused = true;
		}
		if (refused)
			continue;
		if (!is_integer(*expiry))
			unexpected("PTTL");
		const std::int64_t base = time && expiry->integer >= 0 ? time_micros(*time) / 1000 : 0;
		if (holds_as_read(task, *value) && expires_as_read(task, expiry->integer + base))
			same.push_back(task);
		else
			*task.result = PushResult::changed;
	}
	connection_.set_reply_limit(Connection::kDefaultReplyLimit);
	if (refused || same.empty()) {
		(void)connection_.command({"UNWATCH"});
		same.clear();
	}
	return same;
}

bool ConditionalWriter::holds_as_read(const Task &task, const redisReply &value) {
	if (task.item->kind == ItemKind::absent)
		return is_nil(value);
	return task.value_stays() || (is_string(value) && reply_text(value) == task.item->value);
}

bool ConditionalWriter::expires_as_read(const Task &task, std::int64_t expiry) const {
	if (expiry_stays(task))
		return true;
	const std::int64_t expected = expected_expiry(*task.item);
	if (has_pexpiretime_ || expected < 0 || expiry < 0)
		return expiry == expected;
	return std::max(expiry, expected) - std::min(expiry, expected) <= kOldExpirySlackMs;
}

// Returns how many commands that took.
std::size_t ConditionalWriter::append_commands(const Task &task) {
	const std::string_view key = task.item->key;
	const bool expires = task.push->expire_ms != kNoExpiry;
	const std::string expiry = std::to_string(task.push->expire_ms);
	if (task.remove) {
		connection_.append({"DEL", key});
	} else if (task.value_stays()) {
		if (expires)
			connection_.append({"PEXPIREAT", key, expiry});
		else
			connection_.append({"PERSIST", key});
	} else if (expiry_stays(task)) {
		connection_.append({"SET", key, task.push->value, "KEEPTTL"});
	} else if (expires && has_pexpiretime_) {
		connection_.append({"SET", key, task.push->value, "PXAT", expiry});
	} else {
		connection_.append({"SET", key, task.push->value});
		if (!expires)
			return 1;
		connection_.append({"PEXPIREAT", key, expiry});
		return 2;
	}
	return 1;
}

void ConditionalWriter::exec(const std::vector<Task> &tasks) {
	std::vector<std::size_t> counts;
	std::size_t total = 0;
	connection_.append({"MULTI"});
	for (const Task &task : tasks) {
		counts.push_back(append_commands(task));
		total += counts.back();
	}
	connection_.append({"EXEC"});
	bool refused = false;
	for (std::size_t i = 0; i <= total; i++) {
		const ReplyPtr reply = connection_.read_reply();
		if (!is_error(*reply))
			continue;
		refused = true;
		refuse(*reply);
	}
	const ReplyPtr reply = connection_.read_reply();
	if (is_error(*reply))
		refuse(*reply);
	if (is_error(*reply) || refused) {
		if (!is_error(*reply))
			unexpected("EXEC");
		return;
	}
	if (is_nil(*reply)) {
		for (const Task &task : tasks)
			*task.result = PushResult::changed;
		return;
	}
	if (!is_array(*reply) || reply->elements != total)
		unexpected("EXEC");
	std::size_t at = 0;
	for (std::size_t i = 0; i < tasks.size(); i++) {
		bool good = true;
		for (std::size_t j = 0; j < counts[i]; j++, at++)
			if (is_error(*reply->element[at])) {
				refuse(*reply->element[at]);
				good = false;
			}
		*tasks[i].result = good ? PushResult::done : PushResult::refused;
	}
}

// The first reason is kept; an outage is an error of the connection.
void ConditionalWriter::refuse(const redisReply &reply) {
	if (is_outage(reply))
		throw server_error(reply, "to write sessions", Show::code_only);
	if (refusal_.empty())
		refusal_ = refusal_code(reply);
}

} // namespace session_store::redis
