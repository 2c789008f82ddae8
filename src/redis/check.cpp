// The checks behind check_redis.
//
// Rights are tried out on a key that is not there: a command queued by MULTI and thrown away by
// DISCARD is refused exactly where it would be refused for real (rights, memory, a replica), and
// does nothing. The few commands that MULTI does not take are harmless by themselves.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <span>

#include "core/glob.h"
#include "redis/check.h"
#include "redis/connection.h"
#include "redis/remote_clock.h"
#include "redis/server_info.h"

#include "core/cpp_only.h"

namespace session_store::redis {

namespace {

using std::chrono::milliseconds;
using Arguments = std::vector<std::string>;

constexpr int kVersionWithAcl = 60000; // and with client tracking
constexpr int kVersionWithPexpiretime = 70000;
constexpr std::size_t kSampledKeys = 1000;
constexpr int kMaxScans = 200;
constexpr int kClockReads = 5;
constexpr milliseconds kGoodClock{1000};

class Checker {
public:
	Checker(const CheckRequest &request, Waiter &waiter)
		: request_(request), waiter_(waiter), connection_(connect()) {}

	std::vector<CheckItem> run() {
		add("connection", true, request_.endpoint.describe());
		if (!read_info())
			return std::move(items_);
		check_version();
		check_state();
		check_reading_rights();
		check_writing_rights();
		check_lease_rights();
		check_feed();
		check_evictions();
		check_keys();
		check_tls();
		check_clock();
		return std::move(items_);
	}

private:
	void add(std::string_view item, bool ok, std::string detail) {
		items_.push_back({std::string(item), ok, std::move(detail)});
	}

	std::unique_ptr<Connection> connect() {
		return std::make_unique<Connection>(request_.endpoint, waiter_);
	}
	std::string probe_key() const { return request_.prefix + "session_store:check"; }
	std::string lease_key() const {
		return "session_store:lease:" + std::to_string(request_.endpoint.database) + ":" +
			request_.prefix;
	}

	ReplyPtr send(Connection &connection, const Arguments &arguments) {
		const std::vector<std::string_view> views(arguments.begin(), arguments.end());
		connection.append(std::span<const std::string_view>(views));
		return connection.read_reply();
	}

	// Why Redis refuses the command, or "" when it would run.
	std::string refusal(const Arguments &arguments) {
		connection_->append({"MULTI"});
		const std::vector<std::string_view> views(arguments.begin(), arguments.end());
		connection_->append(std::span<const std::string_view>(views));
		connection_->append({"DISCARD"});
		const ReplyPtr multi = connection_->read_reply();
		const ReplyPtr queued = connection_->read_reply();
		const ReplyPtr discard = connection_->read_reply();
		if (is_error(*multi))
			return std::string(error_code(*multi));
		if (is_error(*discard))
			connection_ = connect(); // no right to DISCARD: a new connection does the same
		return is_error(*queued) ? std::string(error_code(*queued)) : std::string();
	}

	// The same by running it, for what MULTI does not take.
	std::string refusal_run(const Arguments &arguments) {
		const ReplyPtr reply = send(*connection_, arguments);
		return is_error(*reply) && error_code(*reply) == "NOPERM" ? "NOPERM" : "";
	}

	bool read_info();
	void check_version();
	void check_state();
	void check_reading_rights();
	void check_writing_rights();
	void check_lease_rights();
	void report_rights(std::string_view item, const std::string &missing, std::string_view keys,
		std::string_view enough);
	void check_feed();
	std::string tracking_problem();
	std::string notifications_problem();
	std::string event_flags();
	void check_evictions();
	void check_keys();
	bool sample(std::vector<std::string> *keys, bool *whole);
	void check_types(const std::vector<std::string> &keys);
	void check_tls();
	void check_clock();

	const CheckRequest &request_;
	Waiter &waiter_;
	std::unique_ptr<Connection> connection_;
	ServerInfo info_;
	bool cluster_ = false;
	bool events_known_ = false;
	std::string events_; // notify-keyspace-events
	std::vector<CheckItem> items_;
};

std::string in_words(std::string_view code) {
	if (code == "NOPERM")
		return "no right to it";
	if (code == "OOM")
		return "Redis is out of memory and evicts nothing";
	if (code == "READONLY")
		return "this is a replica";
	if (code == "MISCONF")
		return "Redis takes no writes because it cannot save its data";
	if (code == "NOREPLICAS")
		return "Redis takes no writes for want of replicas";
	return "Redis answers " + std::string(code);
}

// Appends "command (why)" once for each command.
void note_refusal(std::string *missing, std::string_view command, std::string_view code) {
	if (code.empty())
		return;
	if (!missing->empty())
		*missing += ", ";
	*missing += command;
	*missing += " (" + in_words(code) + ")";
}

bool Checker::read_info() {
	constexpr std::array<std::string_view, 7> kSections = {
		"server", "replication", "persistence", "commandstats", "keyspace", "memory", "cluster"};
	for (const std::string_view section : kSections) {
		const ReplyPtr text = connection_->command({"INFO", section});
		if (is_error(*text)) {
			add("version", false,
				"INFO is refused: " + in_words(error_code(*text)) +
					"; the mirror needs it to know when Redis was replaced (+info)");
			return false;
		}
		parse_info(reply_text(*text), request_.endpoint.database, &info_);
		if (section == "cluster")
			cluster_ = reply_text(*text).find("cluster_enabled:1") != std::string_view::npos;
	}
	return true;
}

void Checker::check_version() {
	const bool ok = info_.version_number() >= kVersionWithAcl;
	add("version", ok,
		info_.version +
			(ok ? "" : ": before 6.0 there is no client tracking, only keyspace notifications"));
}

void Checker::check_state() {
	if (cluster_)
		add("role", false, "a cluster: a store's keys must be on one Redis");
	else if (!info_.is_primary())
		add("role", false,
			"a replica: it takes no writes, and what is read may be old; name the primary");
	else
		add("role", true, "primary");
	if (info_.loading || info_.async_loading)
		add("state", false, "loading its data; the mirror waits until it has");
	else if (!info_.ready())
		add("state", false, "a replica that is not in sync with its primary");
	else
		add("state", true, "ready");
}

void Checker::report_rights(std::string_view item, const std::string &missing,
	std::string_view keys, std::string_view enough) {
	if (missing.empty())
		add(item, true, std::string(enough));
	else
		add(item, false,
			"refused on " + std::string(keys) + ": " + missing +
				"; grant them with ACL SETUSER, as in the README");
}

void Checker::check_reading_rights() {
	const std::string key = probe_key();
	std::string missing;
	std::vector<Arguments> queued = {{"SCAN", "0", "COUNT", "1"}, {"MGET", key}, {"GET", key},
		{"GETRANGE", key, "0", "1"}, {"STRLEN", key}, {"PTTL", key}, {"TIME"}, {"TYPE", key}};
	if (info_.version_number() >= kVersionWithPexpiretime)
		queued.push_back({"PEXPIRETIME", key});
	const ReplyPtr multi = connection_->command({"MULTI"});
	if (is_error(*multi)) {
		note_refusal(&missing, "MULTI", error_code(*multi));
	} else {
		const ReplyPtr exec = connection_->command({"EXEC"});
		if (is_error(*exec))
			note_refusal(&missing, "EXEC", error_code(*exec));
		for (const Arguments &arguments : queued)
			note_refusal(&missing, arguments[0], refusal(arguments));
	}
	note_refusal(&missing, "CLIENT ID", refusal_run({"CLIENT", "ID"}));
	report_rights("rights to read", missing, "the keys under the prefix",
		"every command that reads sessions");
}

void Checker::check_writing_rights() {
	const std::string key = probe_key();
	std::string missing;
	for (const Arguments &arguments : std::vector<Arguments>{{"SET", key, "x", "PX", "1000"},
			 {"PEXPIREAT", key, "1"}, {"PERSIST", key}, {"DEL", key}})
		note_refusal(&missing, arguments[0], refusal(arguments));
	std::string script = refusal({"EVAL", "return 0", "1", key});
	if (script.empty())
		script = refusal({"EVALSHA", std::string(40, '0'), "1", key});
	const std::string watch = refusal_run({"WATCH", key});
	(void)refusal_run({"UNWATCH"});
	if (!script.empty() && !watch.empty())
		note_refusal(&missing, "EVAL and WATCH", script);
	report_rights("rights to write", missing, "the keys under the prefix",
		script.empty() ? "every command that writes sessions, by script"
					   : "every command that writes sessions, by WATCH since EVAL is refused "
						 "(slower)");
}

void Checker::check_lease_rights() {
	const std::string key = lease_key();
	std::string missing;
	for (const Arguments &arguments : std::vector<Arguments>{{"GET", key},
			 {"SET", key, "x", "NX", "PX", "1000"}, {"PEXPIRE", key, "1"}, {"DEL", key}})
		note_refusal(&missing, arguments[0], refusal(arguments));
	report_rights("rights to the lease", missing, "keys under session_store:lease:",
		"the key by which two mirrors of one prefix see each other");
}

// Why tracking does not work, or "".
std::string Checker::tracking_problem() {
	Connection connection(request_.endpoint, waiter_);
	const ReplyPtr id = connection.command({"CLIENT", "ID"});
	if (!is_integer(*id))
		return "CLIENT ID: " + in_words(error_code(*id));
	Arguments tracking = {
		"CLIENT", "TRACKING", "ON", "REDIRECT", std::to_string(id->integer), "BCAST"};
	if (!request_.prefix.empty()) {
		tracking.push_back("PREFIX");
		tracking.push_back(request_.prefix);
	}
	const ReplyPtr on = send(connection, tracking);
	if (is_error(*on))
		return "CLIENT TRACKING: " + in_words(error_code(*on));
	ReplyPtr reply = connection.command({"SUBSCRIBE", "__redis__:invalidate"});
	while (is_array(*reply) && reply->elements > 0 && reply_text(*reply->element[0]) == "message")
		reply = connection.read_reply();
	if (is_error(*reply))
		return "SUBSCRIBE to __redis__:invalidate: " + in_words(error_code(*reply));
	return {};
}

// notify-keyspace-events, read once; events_known_ says whether it could be read.
std::string Checker::event_flags() {
	const ReplyPtr reply = connection_->command({"CONFIG", "GET", "notify-keyspace-events"});
	if (!is_array(*reply) || reply->elements != 2)
		return {};
	events_known_ = true;
	return std::string(reply_text(*reply->element[1]));
}

bool covers(const std::string &flags, std::string_view wanted) {
	return std::all_of(wanted.begin(), wanted.end(), [&](char flag) {
		// A stands for all classes of events, K and E for the two kinds of channels.
		return flags.find(flag) != std::string::npos ||
			(flag != 'K' && flag != 'E' && flags.find('A') != std::string::npos);
	});
}

// Why keyspace notifications would not do instead, or "".
std::string Checker::notifications_problem() {
	if (events_known_ && !covers(events_, "Kg$hxe"))
		return "notify-keyspace-events is \"" + events_ + "\" and does not cover Kg$hxe";
	Connection connection(request_.endpoint, waiter_);
	const ReplyPtr reply = connection.command({"PSUBSCRIBE",
		"__keyspace@" + std::to_string(request_.endpoint.database) +
			"__:" + core::glob_for_prefix(request_.prefix)});
	if (is_error(*reply))
		return "PSUBSCRIBE: " + in_words(error_code(*reply));
	return events_known_ ? std::string() : "notify-keyspace-events cannot be read (+config|get)";
}

void Checker::check_feed() {
	events_ = event_flags();
	const std::string tracking = tracking_problem();
	if (tracking.empty()) {
		add("feed", true, "client tracking");
		return;
	}
	const std::string notifications = notifications_problem();
	if (notifications.empty())
		add("feed", true,
			"keyspace notifications, with comparisons in short intervals, since tracking does not "
			"work: " +
				tracking);
	else
		add("feed", false,
			"comparisons only, so changes of Redis arrive late; no tracking: " + tracking +
				"; no notifications: " + notifications);
}

void Checker::check_evictions() {
	const std::string &policy = info_.maxmemory_policy;
	const bool tells = events_known_ && covers(events_, "Ee");
	const bool evicts = policy != "noeviction";
	add("eviction policy", !evicts || tells,
		(policy.empty() ? std::string("unknown") : policy) +
			(evicts && !tells ? ": Redis may evict sessions, and an evicted session would be taken "
								"as a logout"
							  : ""));
	std::string detail;
	if (!events_known_)
		detail = "notify-keyspace-events cannot be read (+config|get), so evictions are not told "
				 "from logouts";
	else if (tells)
		detail = "notify-keyspace-events is \"" + events_ + "\": evictions are told from logouts";
	else
		detail = "notify-keyspace-events is \"" + events_ +
			"\": with E and e among them, evictions would be told from logouts";
	add("notifications", tells || !evicts || !request_.keeps_evicted, detail);
}

// Keys under the prefix, from the start of a SCAN; false when SCAN is refused.
bool Checker::sample(std::vector<std::string> *keys, bool *whole) {
	std::string cursor = "0";
	const std::string pattern = core::glob_for_prefix(request_.prefix);
	for (int i = 0; i < kMaxScans && keys->size() < kSampledKeys; i++) {
		const ReplyPtr reply =
			connection_->command({"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"});
		if (!is_array(*reply) || reply->elements != 2 || !is_array(*reply->element[1]))
			return false;
		const redisReply &page = *reply->element[1];
		for (std::size_t j = 0; j < page.elements; j++) {
			const std::string_view key = reply_text(*page.element[j]);
			if (!key.starts_with("session_store:lease:"))
				keys->emplace_back(key);
		}
		cursor = reply_text(*reply->element[0]);
		if (cursor == "0") {
			*whole = true;
			return true;
		}
	}
	return true;
}

void Checker::check_keys() {
	std::vector<std::string> keys;
	bool whole = false;
	if (!sample(&keys, &whole)) {
		add("keys", false, "SCAN is refused");
		return;
	}
	const std::string database = " in database " + std::to_string(request_.endpoint.database);
	const std::string all = std::to_string(info_.database_keys) + " keys" + database;
	if (whole)
		add("keys", !keys.empty() || info_.database_keys == 0,
			all + ", " + std::to_string(keys.size()) + " under the prefix" +
				(keys.empty() && info_.database_keys > 0 ? ": is it the right prefix?" : ""));
	else
		add("keys", !keys.empty(),
			all +
				(keys.empty() ? ", none found under the prefix: is it the right prefix?"
							  : ", many under the prefix"));
	check_types(keys);
}

void Checker::check_types(const std::vector<std::string> &keys) {
	for (const std::string &key : keys)
		connection_->append({"TYPE", key});
	std::map<std::string, int> others;
	int count = 0;
	for (std::size_t i = 0; i < keys.size(); i++) {
		const ReplyPtr reply = connection_->read_reply();
		const std::string type(
			is_error(*reply) ? std::string_view("unreadable") : reply_text(*reply));
		if (type != "string" && type != "none") {
			others[type]++;
			count++;
		}
	}
	if (count == 0) {
		add("key types", true,
			keys.empty() ? "no key to look at"
						 : "all of " + std::to_string(keys.size()) + " sampled keys are strings");
		return;
	}
	std::string detail = std::to_string(count) + " of " + std::to_string(keys.size()) +
		" sampled keys cannot be mirrored:";
	for (const auto &[type, number] : others)
		detail += " " + type + " (" + std::to_string(number) + ")";
	add("key types", false, detail + "; they go to session_store.rejects");
}

void Checker::check_tls() {
	if (request_.endpoint.tls)
		add("tls", true, "on");
	else if (!request_.endpoint.path.empty())
		add("tls", true, "off, over a unix socket");
	else
		add("tls", true, "off: sessions and the password cross the network in the clear");
}

void Checker::check_clock() {
	RemoteClock clock;
	for (int i = 0; i < kClockReads; i++)
		clock.measure(*connection_);
	const std::optional<std::chrono::microseconds> difference = clock.difference();
	if (!difference) {
		add("clock", false, "TIME is refused");
		return;
	}
	const auto milli = std::chrono::duration_cast<milliseconds>(*difference).count();
	const bool ok = std::abs(milli) <= kGoodClock.count();
	add("clock", ok,
		"Redis is " + std::to_string(std::abs(milli)) + " ms " + (milli < 0 ? "behind" : "ahead") +
			(ok ? "" : ": sessions end at different moments on the two sides; set the clocks"));
}

} // namespace

std::vector<CheckItem> check(const CheckRequest &request, Waiter &waiter) {
	try {
		return Checker(request, waiter).run();
	} catch (const Error &error) {
		if (error.kind() == ErrorKind::interrupted)
			throw;
		return {{"connection", false, error.what()}};
	}
}

} // namespace session_store::redis
