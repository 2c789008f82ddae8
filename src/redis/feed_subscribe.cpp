// Connection S: how changes are noticed, in the best way that Redis lets us.
//
// Client tracking in broadcast mode, redirected to S itself, so that source and target cannot die
// apart. Else keyspace notifications, which say nothing of flushes (the poll sees those) and may be
// turned off at any time (the poll sees that too). Else nothing, and only comparisons help.

#include <utility>

#include "core/glob.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

constexpr std::string_view kInvalidations = "__redis__:invalidate";
constexpr std::size_t kMessageLimit = std::size_t{64} << 20;

bool is_message(const redisReply &reply, std::string_view kind, std::size_t elements) {
	return is_array(reply) && reply.elements == elements && reply_text(*reply.element[0]) == kind;
}

[[noreturn]] void unexpected(const char *where) {
	throw Error(ErrorKind::protocol, std::string("Redis gave an unexpected answer to ") + where);
}

std::string keyspace_channel(int database) {
	return "__keyspace@" + std::to_string(database) + "__:";
}

std::string evicted_channel(int database) {
	return "__keyevent@" + std::to_string(database) + "__:evicted";
}

// Why Redis refused something that we can do without; throws what is no refusal.
std::string refusal(const redisReply &reply, std::string_view doing) {
	const Error error = server_error(reply, doing, Show::text);
	if (error.kind() == ErrorKind::auth || is_outage(reply))
		throw error;
	return error.what();
}

// Not known where Redis does not tell.
Announcements read_announcements(Connection &connection) {
	const ReplyPtr reply = connection.command({"CONFIG", "GET", "notify-keyspace-events"});
	if (is_error(*reply) && is_outage(*reply))
		throw server_error(*reply, "CONFIG GET", Show::text);
	if (!is_array(*reply) || reply->elements != 2)
		return {};
	return parse_announcements(reply_text(*reply->element[1]));
}

} // namespace

bool Feed::evictions_known() const noexcept {
	if (!connected())
		return false;
	if (mode_ == Mode::notifications)
		return announced_.keyspace_evicted;
	return evictions_subscribed_ &&
		(announced_.known ? announced_.keyevent_evicted : evicted_seen_);
}

// Returns the run id of its server.
std::string Feed::open_subscriber() {
	subscriber_ = std::make_unique<Connection>(endpoint_, waiter_);
	subscriber_->set_reply_limit(kMessageLimit);
	const ReplyPtr text = subscriber_->command_ok({"INFO", "server"}, "INFO", Show::text);
	ServerInfo info;
	parse_info(reply_text(*text), endpoint_.database, &info);
	announced_ = read_announcements(*subscriber_);
	ping_sent_ = Clock::now();
	ping_number_ = pong_number_ = 0;
	mode_ = Mode::tracking;
	mode_reason_ = track();
	if (!mode_reason_.empty())
		follow_notifications();
	evictions_subscribed_ = mode_ != Mode::notifications &&
		subscribe("SUBSCRIBE", evicted_channel(endpoint_.database)).empty();
	evicted_seen_ = false;
	return info.run_id;
}

// Returns why Redis does not let us.
std::string Feed::track() {
	const ReplyPtr id = subscriber_->command({"CLIENT", "ID"});
	if (is_error(*id))
		return refusal(*id, "CLIENT ID");
	if (!is_integer(*id))
		unexpected("CLIENT ID");
	const std::string client_id = std::to_string(id->integer);
	const ReplyPtr tracking = prefix_.empty()
		? subscriber_->command({"CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "BCAST"})
		: subscriber_->command(
			  {"CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "BCAST", "PREFIX", prefix_});
	if (is_error(*tracking))
		return refusal(*tracking, "CLIENT TRACKING");
	check_tracking(client_id);
	std::string refused = subscribe("SUBSCRIBE", std::string(kInvalidations));
	if (!refused.empty())
		subscriber_->command_ok({"CLIENT", "TRACKING", "OFF"}, "CLIENT TRACKING", Show::text);
	return refused;
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

// Without tracking. Subscribes whatever the setting says, since hints do no harm.
void Feed::follow_notifications() {
	mode_ = Mode::comparison_only;
	const std::string pattern =
		core::glob_for_prefix(keyspace_channel(endpoint_.database) + prefix_);
	const std::string refused = subscribe("PSUBSCRIBE", pattern);
	if (!refused.empty())
		mode_reason_ += "; " + refused;
	else if (!announced_.known)
		mode_reason_ += "; Redis does not show notify-keyspace-events";
	else if (!announced_.changes)
		mode_reason_ += "; notify-keyspace-events lacks some of K, g, $ and x";
	else
		mode_ = Mode::notifications;
}

// Notifications can be turned on and off at any time.
void Feed::refresh_announcements() {
	if (!announced_.known)
		return;
	announced_ = read_announcements(*reader_);
	if (mode_ != Mode::notifications || announced_.changes)
		return;
	mode_ = Mode::comparison_only;
	mode_reason_ += "; notify-keyspace-events lacks some of K, g, $ and x";
	note_gap(kGapUnheard);
}

// Hints may come before the acknowledgement; they are taken like any other. Returns why Redis does
// not let us.
std::string Feed::subscribe(std::string_view command, const std::string &channel) {
	subscriber_->append({command, channel});
	const std::string_view kind = command == "SUBSCRIBE" ? "subscribe" : "psubscribe";
	for (;;) {
		const ReplyPtr reply = subscriber_->read_reply();
		if (is_error(*reply))
			return refusal(*reply, command);
		if (is_message(*reply, kind, 3) && reply_text(*reply->element[1]) == channel)
			return {};
		handle_message(*reply);
	}
}

void Feed::handle_message(const redisReply &message) {
	if (is_message(message, "message", 3)) {
		const std::string_view channel = reply_text(*message.element[1]);
		if (channel == kInvalidations)
			handle_invalidation(*message.element[2]);
		else if (channel == evicted_channel(endpoint_.database))
			hint_evicted(reply_text(*message.element[2]), Clock::now());
		else
			unexpected("SUBSCRIBE");
	} else if (is_message(message, "pmessage", 4)) {
		handle_notification(reply_text(*message.element[2]), reply_text(*message.element[3]));
	} else if (is_message(message, "pong", 2)) {
		handle_pong(reply_text(*message.element[1]));
	} else if (is_string(message)) { // PING where nothing is subscribed to
		handle_pong(reply_text(message));
	} else if (is_error(message)) {
		throw server_error(message, "the subscription", Show::text);
	} else {
		unexpected("SUBSCRIBE");
	}
}

void Feed::handle_notification(std::string_view channel, std::string_view event) {
	const std::string before = keyspace_channel(endpoint_.database);
	if (!channel.starts_with(before))
		unexpected("PSUBSCRIBE");
	channel.remove_prefix(before.size());
	if (event == "evicted")
		hint_evicted(channel, Clock::now());
	else
		hint(channel, Clock::now());
	if (dirty_.overflowed())
		note_gap(kGapOverflow);
}

} // namespace session_store::redis
