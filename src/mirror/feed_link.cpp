// The C++ side of the link: the one Feed of this process and its exceptions.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/text.h"
#include "mirror/feed_link.h"
#include "mirror/link_endpoint.h"
#include "redis/feed.h"

#include "core/cpp_only.h"

namespace session_store {

namespace {

// A feed and what it was made of, to tell whether new options ask for another one.
struct Link {
	redis::Endpoint endpoint;
	std::string prefix;
	redis::Feed feed;
	std::array<FeedItem, kFeedBatch> items;
	std::vector<redis::Push> pushes;
	std::vector<redis::PushResult> results;
	char mode_reason[200] = ""; // what feed_state() shows

	Link(const redis::Endpoint &to, const std::string &under, redis::Waiter &waiter)
		: endpoint(to), prefix(under), feed(to, under, waiter), items() {}
};
static_assert(kFeedBatch <= redis::kMaxFetch);
static_assert(kFeedNoExpiry == redis::kNoExpiry);

// Lives as long as the process: nothing destroys it while a method of it may be running.
Link *link_ = nullptr;

constexpr std::size_t kRefusalBytes = 128;

void copy_text(char *to, std::size_t size, std::string_view from) noexcept {
	const std::string_view text = core::utf8_clip(from, size - 1);
	std::memcpy(to, text.data(), text.size());
	to[text.size()] = '\0';
}

void fill(FeedError *error, FeedFailure kind, const char *message) noexcept {
	error->kind = kind;
	copy_text(error->message, sizeof(error->message), message);
}

FeedFailure failure_of(const redis::Error &error) noexcept {
	if (error.kind() == redis::ErrorKind::interrupted)
		return FeedFailure::interrupted;
	if (error.kind() == redis::ErrorKind::refused)
		return FeedFailure::refused;
	const std::string_view code = error.code();
	if (code == "LOADING" || code == "MASTERDOWN" || code == "BUSY")
		return FeedFailure::not_ready;
	return FeedFailure::connection;
}

template <typename Fn>
bool guarded(FeedError *error, Fn &&fn) noexcept {
	error->kind = FeedFailure::none;
	error->message[0] = '\0';
	try {
		fn();
		return true;
	} catch (const redis::Error &e) {
		fill(error, failure_of(e), e.what());
	} catch (const std::bad_alloc &) {
		fill(error, FeedFailure::internal, "out of memory");
	} catch (const std::exception &e) {
		fill(error, FeedFailure::internal, e.what());
	} catch (...) {
		fill(error, FeedFailure::internal, "unknown C++ exception");
	}
	return false;
}

redis::Feed &feed() {
	if (link_ == nullptr)
		throw redis::Error(redis::ErrorKind::closed, "there is no connection to Redis");
	return link_->feed;
}

std::string text_or_empty(const char *text) {
	return text == nullptr ? std::string() : std::string(text);
}

redis::Endpoint make_endpoint(const FeedOptions &options) {
	redis::Endpoint endpoint;
	if (options.host != nullptr)
		endpoint.host = options.host;
	endpoint.port = options.port;
	endpoint.path = text_or_empty(options.path);
	endpoint.database = options.database;
	endpoint.username = text_or_empty(options.username);
	endpoint.password = text_or_empty(options.password);
	endpoint.tls = options.tls;
	endpoint.tls_ca_file = text_or_empty(options.tls_ca_file);
	endpoint.tls_cert_file = text_or_empty(options.tls_cert_file);
	endpoint.tls_key_file = text_or_empty(options.tls_key_file);
	endpoint.connect_timeout = std::chrono::milliseconds(options.connect_timeout_ms);
	endpoint.command_timeout = std::chrono::milliseconds(options.command_timeout_ms);
	return endpoint;
}

bool same(const redis::Endpoint &a, const redis::Endpoint &b) {
	return a.host == b.host && a.port == b.port && a.path == b.path && a.database == b.database &&
		a.username == b.username && a.password == b.password && a.tls == b.tls &&
		a.tls_ca_file == b.tls_ca_file && a.tls_cert_file == b.tls_cert_file &&
		a.tls_key_file == b.tls_key_file && a.connect_timeout == b.connect_timeout &&
		a.command_timeout == b.command_timeout;
}

FeedMode mode_of(redis::Mode mode) {
	switch (mode) {
	case redis::Mode::tracking:
		return FeedMode::tracking;
	case redis::Mode::notifications:
		return FeedMode::notifications;
	case redis::Mode::comparison_only:
		break;
	}
	return FeedMode::comparison_only;
}

int comparison_interval_ms(redis::Mode mode) {
	switch (mode) {
	case redis::Mode::tracking:
		return 30 * 60 * 1000;
	case redis::Mode::notifications:
		return 60 * 1000;
	case redis::Mode::comparison_only:
		break;
	}
	return 5 * 1000;
}

PushOutcome outcome_of(redis::PushResult result) {
	switch (result) {
	case redis::PushResult::done:
		return PushOutcome::done;
	case redis::PushResult::changed:
		return PushOutcome::changed;
	case redis::PushResult::refused:
		break;
	}
	return PushOutcome::refused;
}

FeedItemKind kind_of(redis::ItemKind kind) {
	switch (kind) {
	case redis::ItemKind::absent:
		return FeedItemKind::absent;
	case redis::ItemKind::value:
		return FeedItemKind::value;
	case redis::ItemKind::other_type:
		return FeedItemKind::other_type;
	case redis::ItemKind::too_large:
		return FeedItemKind::too_large;
	case redis::ItemKind::error:
		break;
	}
	return FeedItemKind::error;
}

} // namespace

redis::Endpoint endpoint_of(const FeedOptions &options) {
	return make_endpoint(options);
}

bool feed_configure(
	const FeedOptions *options, redis::Waiter *waiter, bool *made, FeedError *error) noexcept {
	*made = false;
	return guarded(error, [&] {
		const redis::Endpoint endpoint = make_endpoint(*options);
		const std::string prefix = text_or_empty(options->prefix);
		if (link_ != nullptr && same(link_->endpoint, endpoint) && link_->prefix == prefix)
			return;
		auto link = std::make_unique<Link>(endpoint, prefix, *waiter);
		feed_discard();
		link_ = link.release();
		*made = true;
	});
}

bool feed_connect(FeedError *error) noexcept {
	return guarded(error, [] { feed().connect(); });
}

void feed_discard() noexcept {
	delete link_;
	link_ = nullptr;
}

void feed_state(FeedState *state) noexcept {
	*state = FeedState{};
	state->mode_reason = "";
	state->database_keys = state->other_keys = -1;
	if (link_ == nullptr)
		return;
	const redis::Feed &feed = link_->feed;
	const redis::FeedCounters &counters = feed.counters();
	state->connected = feed.connected();
	state->scanning = feed.scanning();
	state->comparing = feed.comparing();
	state->gap = feed.gap() != redis::kGapNone;
	state->gap_reasons = feed.gap() | feed.answering();
	state->continuity_broken = (state->gap_reasons & redis::kGapBreaksContinuity) != 0;
	state->gap_breaks = (feed.gap() & redis::kGapBreaksContinuity) != 0;
	state->mode = mode_of(feed.mode());
	copy_text(link_->mode_reason, sizeof(link_->mode_reason), feed.mode_reason());
	state->mode_reason = link_->mode_reason;
	state->comparison_interval_ms = comparison_interval_ms(feed.mode());
	state->evictions_known = feed.evictions_known();
	const auto difference = feed.clock_difference();
	state->clock_known = difference.has_value();
	state->clock_difference_us = difference ? difference->count() : 0;
	state->dirty = static_cast<std::int64_t>(feed.dirty());
	state->in_flight = static_cast<std::int64_t>(feed.in_flight());
	state->oldest_ms = feed.oldest_age().count();
	state->hints = static_cast<std::int64_t>(counters.hints);
	state->gaps = static_cast<std::int64_t>(counters.gaps);
	state->connects = static_cast<std::int64_t>(counters.connects);
	state->scanned = static_cast<std::int64_t>(counters.scanned);
	state->database_keys = counters.database_keys;
	state->other_keys = counters.other_keys;
}

bool feed_assume(const FeedIdentity *identity, FeedError *error) noexcept {
	return guarded(error, [&] {
		feed().assume({identity->run_id, identity->replication_id, identity->swapdb_calls,
			identity->flush_calls});
	});
}

void feed_identity(FeedIdentity *identity) noexcept {
	*identity = FeedIdentity{};
	FeedError ignored;
	(void)guarded(&ignored, [&] {
		const redis::Identity known = feed().identity();
		if (known.run_id.size() >= sizeof(identity->run_id) ||
			known.replication_id.size() >= sizeof(identity->replication_id))
			return;
		std::memcpy(identity->run_id, known.run_id.data(), known.run_id.size());
		std::memcpy(
			identity->replication_id, known.replication_id.data(), known.replication_id.size());
		identity->swapdb_calls = known.swapdb_calls;
		identity->flush_calls = known.flush_calls;
	});
}

bool feed_pump(FeedError *error) noexcept {
	return guarded(error, [] { feed().pump(); });
}

bool feed_wait(int milliseconds, bool *woken, FeedError *error) noexcept {
	*woken = false;
	return guarded(error, [&] {
		*woken = feed().wait(std::chrono::milliseconds(milliseconds)) == redis::Wake::interrupted;
	});
}

bool feed_begin_comparison(FeedError *error) noexcept {
	return guarded(error, [] { feed().begin_comparison(); });
}

bool feed_scan_step(FeedError *error) noexcept {
	return guarded(error, [] { feed().scan_step(); });
}

bool feed_rescan(FeedError *error) noexcept {
	return guarded(error, [] { feed().rescan(); });
}

bool feed_seen(std::string_view sid) noexcept {
	return link_ != nullptr && link_->feed.seen(sid);
}

void feed_note_seen(std::string_view sid) noexcept {
	FeedError ignored;
	if (link_ != nullptr)
		(void)guarded(&ignored, [&] { link_->feed.note_seen(sid); });
}

bool feed_mark(std::string_view sid, FeedError *error) noexcept {
	return guarded(error, [&] { feed().mark(sid); });
}

void feed_end_comparison() noexcept {
	if (link_ != nullptr)
		link_->feed.end_comparison();
}

bool feed_fetch(const FeedItem **items, int *count, FeedError *error) noexcept {
	*items = nullptr;
	*count = 0;
	return guarded(error, [&] {
		const auto fetched = feed().fetch(kFeedBatch);
		for (std::size_t i = 0; i < fetched.size(); i++) {
			const redis::Item &item = fetched[i];
			link_->items[i] = {item.key, item.sid, item.value, item.type_name, item.size,
				item.expire_ms, kind_of(item.kind), item.evicted};
		}
		*items = link_->items.data();
		*count = static_cast<int>(fetched.size());
	});
}

bool feed_prefetch(FeedError *error) noexcept {
	return guarded(error, [] { feed().prefetch(kFeedBatch); });
}

bool feed_put_back(int index, FeedError *error) noexcept {
	return guarded(error, [&] { feed().put_back(static_cast<std::size_t>(index)); });
}

bool feed_put_back_all(FeedError *error) noexcept {
	return guarded(error, [] { feed().put_back_all(); });
}

bool feed_commit(FeedError *error) noexcept {
	return guarded(error, [] { feed().commit(); });
}

bool feed_confirm(bool *kept, FeedError *error) noexcept {
	*kept = false;
	return guarded(error, [&] {
		*kept = feed().confirm();
		const auto items = feed().items();
		for (std::size_t i = 0; i < items.size(); i++)
			link_->items[i].evicted = items[i].evicted;
	});
}

bool feed_start_push(const PushCommand *commands, int count, FeedError *error) noexcept {
	return guarded(error, [&] {
		redis::Feed &to = feed();
		std::vector<redis::Push> &pushes = link_->pushes;
		pushes.clear();
		for (const PushCommand &one : std::span(commands, static_cast<std::size_t>(count)))
			pushes.push_back({static_cast<std::size_t>(one.item), one.remove, one.value,
				one.expire_ms, one.settles});
		to.start_push(pushes);
	});
}

bool feed_finish_pushes(PushOutcome *outcomes, int count, FeedError *error) noexcept {
	std::fill_n(outcomes, count, PushOutcome::changed);
	char refusal[kRefusalBytes] = "";
	const bool good = guarded(error, [&] {
		redis::Feed &to = feed();
		std::vector<redis::PushResult> &results = link_->results;
		results.assign(static_cast<std::size_t>(count), redis::PushResult::changed);
		std::string why;
		to.finish_pushes(results, &why);
		std::transform(results.begin(), results.end(), outcomes, outcome_of);
		if (!why.empty())
			copy_text(refusal, sizeof(refusal), "Redis refused to write sessions: " + why);
	});
	if (good && refusal[0] != '\0')
		fill(error, FeedFailure::refused, refusal);
	return good;
}

bool feed_lease(const char *holder, int ttl_ms, bool *held, char *other, std::size_t other_size,
	FeedError *error) noexcept {
	*held = false;
	other[0] = '\0';
	return guarded(error, [&] {
		std::string name;
		*held = feed().lease(holder, std::chrono::milliseconds(ttl_ms), &name);
		copy_text(
			other, other_size, core::valid_utf8(name) ? name : "a name that is not valid UTF-8");
	});
}

bool feed_release_lease(const char *holder, FeedError *error) noexcept {
	return guarded(error, [&] { feed().release_lease(holder); });
}

bool feed_start_barrier(FeedError *error) noexcept {
	return guarded(error, [] { feed().start_barrier(); });
}

bool feed_caught_up() noexcept {
	return link_ != nullptr && link_->feed.caught_up();
}

} // namespace session_store
