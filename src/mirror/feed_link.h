// The mirror's link to redis::Feed: plain data and noexcept functions, so that the glue, which may
// be left by longjmp at any ereport, never has a C++ object on its stack.
//
// One feed per process, kept behind a static pointer. Every function but feed_state() returns false
// on failure, with `error` filled; a failure that is neither `interrupted` nor `refused` has closed
// the connections.
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
	refused,     // Redis refused the command and the connection is as good as before
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
	const char *tls_ca_file;
	const char *tls_cert_file;
	const char *tls_key_file;
};

enum class FeedItemKind : std::uint8_t { absent, value, other_type, too_large, error };

inline constexpr std::int64_t kFeedNoExpiry = INT64_MAX;
inline constexpr std::size_t kFeedBatch = 1000;

// One key as it was read; see redis::Item. Views are valid until feed_commit() or the next fetch.
struct FeedItem {
	std::string_view key;
	std::string_view sid;
	std::string_view value;
	std::string_view type_name;
	std::uint64_t size;
	std::int64_t expire_ms;
	FeedItemKind kind;
	// Absent, and an evicted event for it was seen since it was last read as a value.
	// feed_confirm() brings it up to date.
	bool evicted;
};
static_assert(std::is_trivially_destructible_v<FeedItem>);

// A compare-and-set against an item of the last feed_fetch(), a value or an absent one.
struct PushCommand {
	int item;
	bool remove;
	std::string_view value; // the item's own view: only the expiry is written
	std::int64_t expire_ms; // kFeedNoExpiry: none; one that is over means remove
	bool settles;           // then both sides agree, and nothing is left to be done about the key
};
static_assert(std::is_trivially_destructible_v<PushCommand>);

enum class PushOutcome : std::uint8_t {
	done,
	changed, // Redis moved on: read again
	refused, // Redis refused to write, or the item's kind cannot be pushed over
};

// How changes in Redis are noticed; the best that Redis lets us.
enum class FeedMode : std::uint8_t { tracking, notifications, comparison_only };

// Which Redis it was when it was last seen. Kept by the caller, it lets the next process know
// whether it is still the same one, with no flush and no swap in between. Empty run_id: not known.
struct FeedIdentity {
	char run_id[64];
	char replication_id[64];
	std::int64_t swapdb_calls;
	std::int64_t flush_calls;
};

// What the feed is about, all of it at once.
struct FeedState {
	bool connected;
	bool scanning;
	bool comparing;
	bool gap;
	unsigned gap_reasons;   // redis::Gap, of the gap to be answered and of that under answer
	bool continuity_broken; // one of those breaks it
	bool gap_breaks;        // the gap to be answered does
	FeedMode mode;
	const char *mode_reason;    // why not tracking; "" when it is
	int comparison_interval_ms; // how often this mode needs a comparison even without a gap
	bool evictions_known;       // evicted events are announced, and subscribed to
	bool clock_known;
	std::int64_t clock_difference_us; // Redis' clock minus ours
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
bool feed_configure(
	const FeedOptions *options, redis::Waiter *waiter, bool *made, FeedError *error) noexcept;
bool feed_connect(FeedError *error) noexcept;
// Drops the connections and the feed; does nothing when there is none.
void feed_discard() noexcept;

void feed_state(FeedState *state) noexcept;

// What was assumed of the Redis before the first feed_connect() counts as the last one seen.
bool feed_assume(const FeedIdentity *identity, FeedError *error) noexcept;
void feed_identity(FeedIdentity *identity) noexcept;

bool feed_pump(FeedError *error) noexcept;
// Waits for hints, the latch or the time, whichever is first, and takes in what is there. *woken is
// whether it was the latch.
bool feed_wait(int milliseconds, bool *woken, FeedError *error) noexcept;

bool feed_begin_comparison(FeedError *error) noexcept;
bool feed_scan_step(FeedError *error) noexcept;
// Scans once more, within the same comparison.
bool feed_rescan(FeedError *error) noexcept;
// Whether the comparison has met the sid, in its SCAN or as a value; false when in doubt.
bool feed_seen(std::string_view sid) noexcept;
void feed_note_seen(std::string_view sid) noexcept;
bool feed_mark(std::string_view sid, FeedError *error) noexcept;
void feed_end_comparison() noexcept;

// Reads at most kFeedBatch dirty keys, without what turns out to be the echo of a push; the array
// belongs to the link.
bool feed_fetch(const FeedItem **items, int *count, FeedError *error) noexcept;
// After feed_fetch() and before feed_commit(): asks Redis for the next batch, none of whose keys is
// in this one, so that the next feed_fetch() mostly finds it here.
bool feed_prefetch(FeedError *error) noexcept;
bool feed_put_back(int index, FeedError *error) noexcept;
bool feed_put_back_all(FeedError *error) noexcept;
bool feed_commit(FeedError *error) noexcept;

// A barrier: once it is passed and what was dirty then is copied, all that Redis had accepted
// before the call is.
bool feed_start_barrier(FeedError *error) noexcept;
bool feed_caught_up() noexcept;

// Whether what was read until now was read from the Redis that has been followed: *kept is false
// when a gap that breaks continuity waits to be answered. To be asked after a fetch with absent
// items and before they are applied.
bool feed_confirm(bool *kept, FeedError *error) noexcept;

// Begins to write what is asked, each only while its key is as it was fetched, and does not wait
// for it. What the commands show must stay until feed_finish_pushes(), which comes before
// feed_commit().
bool feed_start_push(const PushCommand *commands, int count, FeedError *error) noexcept;
// outcomes[i] is that of the i-th command since the last call. True also when Redis refused some:
// then error->message says why, with kind refused (none when nothing was refused). The items stay
// valid.
bool feed_finish_pushes(PushOutcome *outcomes, int count, FeedError *error) noexcept;

// Takes or renews the lease on this prefix of this database; *held is false when another holds it,
// whose name goes to `other`. `holder` is not empty.
bool feed_lease(const char *holder, int ttl_ms, bool *held, char *other, std::size_t other_size,
	FeedError *error) noexcept;
bool feed_release_lease(const char *holder, FeedError *error) noexcept;

} // namespace session_store
