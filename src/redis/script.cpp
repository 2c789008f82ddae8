// Calling a Lua script.

#include <array>

#include "redis/script.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

bool contains(std::string_view text, std::string_view part) noexcept {
	return text.find(part) != std::string_view::npos;
}

// That the command itself may not be used, or does not exist.
bool is_command_refused(const redisReply &reply) noexcept {
	const std::string_view text = reply_text(reply);
	return is_error(reply) &&
		(error_code(reply) == "NOPERM" || text.starts_with("ERR unknown command") ||
			text.starts_with("ERR unknown subcommand") ||
			text.starts_with("ERR Unknown subcommand"));
}

} // namespace

void Script::load(Connection &connection) {
	if (way_ != Way::digest || !digest_.empty())
		return;
	if (forgotten_) { // loaded, and not there at once: do without
		way_ = Way::text;
		return;
	}
	const ReplyPtr reply = connection.command({"SCRIPT", "LOAD", text_});
	if (is_string(*reply))
		digest_ = reply_text(*reply);
	else if (is_error(*reply) && is_outage(*reply))
		throw server_error(*reply, "a script", Show::code_only);
	if (digest_.empty())
		way_ = Way::text;
}

void Script::append(Connection &connection, std::string_view key,
	std::initializer_list<std::string_view> arguments) {
	call_.clear();
	if (way_ == Way::digest)
		call_.insert(call_.end(), {"EVALSHA", digest_, "1", key});
	else
		call_.insert(call_.end(), {"EVAL", text_, "1", key});
	call_.insert(call_.end(), arguments);
	connection.append(call_);
}

bool Script::not_run(const redisReply &reply) {
	if (!is_error(reply)) {
		forgotten_ = false;
		return false;
	}
	if (error_code(reply) == "NOSCRIPT") {
		forgotten_ = true;
		digest_.clear();
		return true;
	}
	if (!is_command_refused(reply) || contains(reply_text(reply), "script:"))
		return false;
	way_ = Way::none;
	return true;
}

ReplyPtr Script::run(Connection &connection, std::string_view key,
	std::initializer_list<std::string_view> arguments) {
	while (usable()) {
		load(connection);
		append(connection, key, arguments);
		ReplyPtr reply = connection.read_reply();
		if (!not_run(*reply))
			return reply;
	}
	return nullptr;
}

std::string_view refusal_code(const redisReply &reply) noexcept {
	const std::string_view code = error_code(reply);
	if (code != "ERR")
		return code;
	const std::string_view text = reply_text(reply);
	for (const std::string_view known : {"OOM", "NOPERM", "READONLY", "MISCONF", "NOREPLICAS"})
		if (contains(text, known))
			return known;
	return contains(text, "user executing the script") ? "NOPERM" : code;
}

bool is_outage(const redisReply &reply) noexcept {
	constexpr std::array<std::string_view, 4> kOutages{
		"LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN"};
	const std::string_view code = error_code(reply);
	for (const std::string_view outage : kOutages)
		if (code == outage)
			return true;
	return false;
}

} // namespace session_store::redis
