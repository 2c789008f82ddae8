// Taking, renewing and giving back the lease.

#include <algorithm>

#include "redis/lease.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr std::string_view kRelease = "0";

// The other holder, or nothing once it is as asked.
constexpr std::string_view kScript = "local h=redis.call('GET',KEYS[1]) "
									 "if h and h~=ARGV[1] then return h end "
									 "if ARGV[2]~='0' then "
									 "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) "
									 "elseif h then redis.call('DEL',KEYS[1]) end "
									 "return ''";

[[noreturn]] void refuse(const redisReply &reply) {
	if (is_outage(reply))
		throw server_error(reply, "the lease", Show::code_only);
	const std::string_view code = refusal_code(reply);
	throw Error(ErrorKind::refused, "Redis refused the lease: " + std::string(code), code);
}

void require(const redisReply &reply) {
	if (is_error(reply))
		refuse(reply);
}

} // namespace

Lease::Lease(int database, std::string_view prefix) : script_(kScript) {
	key_.append(kLeaseKeys).append(std::to_string(database)).append(":").append(prefix);
}

bool Lease::take(Connection &connection, std::string_view holder, std::chrono::milliseconds ttl,
	std::string *other) {
	const auto milliseconds = std::max<std::chrono::milliseconds::rep>(ttl.count(), 1);
	*other = change(connection, holder, std::to_string(milliseconds));
	return other->empty();
}

void Lease::release(Connection &connection, std::string_view holder) {
	(void)change(connection, holder, kRelease);
}

void Lease::reset() {
	script_ = Script(kScript);
}

std::string Lease::change(Connection &connection, std::string_view holder, std::string_view ttl) {
	const ReplyPtr reply = script_.run(connection, key_, {holder, ttl});
	if (!reply)
		return change_watched(connection, holder, ttl);
	require(*reply);
	if (!is_string(*reply))
		throw Error(ErrorKind::protocol, "Redis gave an unexpected answer to the lease");
	return std::string(reply_text(*reply));
}

// The same where scripts are refused. A race for it that is lost counts as held by another.
std::string Lease::change_watched(
	Connection &connection, std::string_view holder, std::string_view ttl) {
	require(*connection.command({"WATCH", key_}));
	const ReplyPtr present = connection.command({"GET", key_});
	const std::string now(reply_text(*present));
	if (is_error(*present) || (!now.empty() && now != holder)) {
		(void)connection.command({"UNWATCH"});
		require(*present);
		return now;
	}
	connection.append({"MULTI"});
	if (ttl == kRelease)
		connection.append({"DEL", key_});
	else
		connection.append({"SET", key_, holder, "PX", ttl});
	connection.append({"EXEC"});
	const ReplyPtr begun = connection.read_reply();
	const ReplyPtr queued = connection.read_reply();
	const ReplyPtr exec = connection.read_reply();
	require(*begun);
	require(*queued);
	require(*exec);
	if (is_nil(*exec))
		return "unknown";
	if (!is_array(*exec) || exec->elements != 1)
		throw Error(ErrorKind::protocol, "Redis gave an unexpected answer to EXEC");
	require(*exec->element[0]);
	return {};
}

} // namespace session_store::redis
