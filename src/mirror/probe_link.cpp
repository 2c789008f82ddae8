// The C++ side of the backend's link to Redis.
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/text.h"
#include "mirror/link_endpoint.h"
#include "mirror/probe_link.h"
#include "redis/check.h"
#include "redis/key_reader.h"
#include "redis/remote_clock.h"

#include "core/cpp_only.h"

namespace session_store {

namespace {

constexpr int kClockReads = 5;

struct Probe {
	std::string prefix;
	redis::Connection connection;
	std::optional<redis::KeyReader> reader;
	std::vector<FeedItem> items;

	Probe(const FeedOptions &options, redis::Waiter &waiter)
		: prefix(options.prefix == nullptr ? "" : options.prefix),
		  connection(endpoint_of(options), waiter) {}
};

struct Findings {
	std::vector<redis::CheckItem> items;
	std::vector<ProbeFinding> rows;
};

Probe *probe_ = nullptr;
Findings *findings_ = nullptr;

Probe &probe() {
	if (probe_ == nullptr)
		throw redis::Error(redis::ErrorKind::closed, "there is no connection to Redis");
	return *probe_;
}

redis::KeyReader &reader() {
	Probe &it = probe();
	if (!it.reader)
		it.reader.emplace(it.connection, it.prefix);
	return *it.reader;
}

static_assert(static_cast<int>(redis::ItemKind::absent) == static_cast<int>(FeedItemKind::absent) &&
	static_cast<int>(redis::ItemKind::value) == static_cast<int>(FeedItemKind::value) &&
	static_cast<int>(redis::ItemKind::other_type) == static_cast<int>(FeedItemKind::other_type) &&
	static_cast<int>(redis::ItemKind::too_large) == static_cast<int>(FeedItemKind::too_large) &&
	static_cast<int>(redis::ItemKind::error) == static_cast<int>(FeedItemKind::error));

FeedItem to_item(const redis::Item &from) noexcept {
	FeedItem item{};
	item.key = from.key;
	item.sid = from.sid;
	item.value = from.value;
	item.type_name = from.type_name;
	item.size = from.size;
	item.expire_ms = from.expire_ms;
	item.kind = static_cast<FeedItemKind>(from.kind);
	return item;
}

void fill(FeedError *error, FeedFailure kind, const char *message) noexcept {
	error->kind = kind;
	const std::string_view text = core::utf8_clip(message, sizeof(error->message) - 1);
	std::memcpy(error->message, text.data(), text.size());
	error->message[text.size()] = '\0';
}

template <typename Fn>
bool guarded(FeedError *error, Fn &&fn) noexcept {
	fill(error, FeedFailure::none, "");
	try {
		fn();
		return true;
	} catch (const redis::Error &e) {
		const bool interrupted = e.kind() == redis::ErrorKind::interrupted;
		fill(error, interrupted ? FeedFailure::interrupted : FeedFailure::connection, e.what());
	} catch (const std::bad_alloc &) {
		fill(error, FeedFailure::internal, "out of memory");
	} catch (const std::exception &e) {
		fill(error, FeedFailure::internal, e.what());
	} catch (...) {
		fill(error, FeedFailure::internal, "unknown C++ exception");
	}
	return false;
}

} // namespace

bool probe_check(const FeedOptions *options, bool keeps_evicted, redis::Waiter *waiter,
	FeedError *error) noexcept {
	return guarded(error, [&] {
		auto made = std::make_unique<Findings>();
		const redis::CheckRequest request{endpoint_of(*options),
			options->prefix == nullptr ? "" : options->prefix, keeps_evicted};
		made->items = redis::check(request, *waiter);
		for (const redis::CheckItem &item : made->items)
			made->rows.push_back({item.item.c_str(), item.ok, item.detail.c_str()});
		delete findings_;
		findings_ = made.release();
	});
}

int probe_findings(const ProbeFinding **findings) noexcept {
	*findings = findings_ == nullptr ? nullptr : findings_->rows.data();
	return findings_ == nullptr ? 0 : static_cast<int>(findings_->rows.size());
}

bool probe_open(const FeedOptions *options, redis::Waiter *waiter, FeedError *error) noexcept {
	return guarded(error, [&] {
		probe_close();
		probe_ = std::make_unique<Probe>(*options, *waiter).release();
	});
}

void probe_close() noexcept {
	delete probe_;
	probe_ = nullptr;
	delete findings_;
	findings_ = nullptr;
}

bool probe_clock(std::int64_t *difference, FeedError *error) noexcept {
	return guarded(error, [&] {
		redis::RemoteClock clock;
		for (int i = 0; i < kClockReads; i++)
			clock.measure(probe().connection);
		const auto found = clock.difference();
		*difference = found ? found->count() : 0;
	});
}

bool probe_count(std::int64_t *keys, FeedError *error) noexcept {
	return guarded(error, [&] {
		*keys = static_cast<std::int64_t>(redis::count_keys(probe().connection, probe().prefix));
	});
}

bool probe_start_scan(FeedError *error) noexcept {
	return guarded(error, [] { reader().start_scan(); });
}

bool probe_start_sample(std::size_t count, FeedError *error) noexcept {
	return guarded(error, [&] { reader().start_sample(count); });
}

bool probe_add(std::string_view sid, FeedError *error) noexcept {
	return guarded(error, [&] { reader().add(sid); });
}

bool probe_next(const FeedItem **items, int *count, bool *more, FeedError *error) noexcept {
	return guarded(error, [&] {
		std::vector<FeedItem> &out = probe().items;
		std::span<const redis::Item> read;
		out.clear();
		*more = reader().next(&read);
		for (const redis::Item &item : read)
			out.push_back(to_item(item));
		*items = out.data();
		*count = static_cast<int>(out.size());
	});
}

} // namespace session_store
