// The mirror's link to redis::Feed: plain data and noexcept functions, so that the glue, which may
// be left by longjmp at any ereport, never has a C++ object on its stack.
//
// One feed per process, kept behind a static pointer. Every function but feed_state() returns false
// on failure, with `error` filled; a failure that is not `interrupted` has closed the connections.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace session_store {

namespace redis {
class Waiter;
}

enum class FeedFailure : std::uint8_t {
	none,
	connection,  // unreachable, refused, timed out, cut: tried again by itself
	not_ready,   // Redis answers but does not hold all its data yet
	interrupted, // the waiter said so
	internal,    // out of memory and the like
};

struct FeedError {
	FeedFailure kind;
	char message[256]; // no password, no sid
};

// Where to connect to. Null strings mean none. Copied.
struct FeedOptions {
	const char *host;
	int port;
	const char *path;
	int database;
	bool tls;
	int connect_timeout_ms;
	int command_timeout_ms;
	const char *username;
	const char *password;
	const char *prefix;
};

enum class FeedItemKind : std::uint8_t { absent, value, other_type, too_large, error };

inline constexpr std::int64_t kFeedNoExpiry = INT64_MAX;
inline constexpr std::size_t kFeedBatch = 250;

// One key as it was read; see redis::Item. Views are valid until feed_commit() or the next fetch.
struct FeedItem {
	std::string_view key;
	std::string_view sid;
	std::string_view value;
	std::string_view type_name;
	std::uint64_t size;
	std::int64_t expire_ms;
	FeedItemKind kind;
};
static_assert(std::is_trivially_destructible_v<FeedItem>);

// What the feed is about, all of it at once.
struct FeedState {
	bool connected;
	bool scanning;
	bool comparing;
	bool gap;
	std::int64_t dirty;
	std::int64_t in_flight;
	std::int64_t oldest_ms;
	std::int64_t hints;
	std::int64_t gaps;
	std::int64_t connects;
	std::int64_t scanned;
	std::int64_t database_keys; // -1: unknown
	std::int64_t other_keys;    // -1: unknown
};

// Makes the feed that the options ask for, unless the one there is the same. Connects to nothing.
bool feed_configure(const FeedOptions *options, redis::Waiter *waiter, FeedError *error) noexcept;
bool feed_connect(FeedError *error) noexcept;
// Drops the connections and the feed; does nothing when there is none.
void feed_discard() noexcept;

void feed_state(FeedState *state) noexcept;

bool feed_pump(FeedError *error) noexcept;
// Waits for hints, the latch or the time, whichever is first, and takes in what is there. *woken is
// whether it was the latch.
bool feed_wait(int milliseconds, bool *woken, FeedError *error) noexcept;

bool feed_begin_comparison(FeedError *error) noexcept;
bool feed_scan_step(FeedError *error) noexcept;
bool feed_seen_in_scan(std::string_view sid) noexcept;
bool feed_mark(std::string_view sid, FeedError *error) noexcept;
void feed_end_comparison() noexcept;

// Reads at most kFeedBatch dirty keys; the array belongs to the link.
bool feed_fetch(const FeedItem **items, int *count, FeedError *error) noexcept;
bool feed_put_back(int index, FeedError *error) noexcept;
bool feed_put_back_all(FeedError *error) noexcept;
bool feed_commit(FeedError *error) noexcept;

} // namespace session_store
