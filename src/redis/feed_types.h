// What the feed takes and gives, as plain data.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/dirty_set.h"

#include "core/cpp_only.h"

namespace session_store::redis {

inline constexpr std::size_t kMaxFetch = 1000;
inline constexpr std::size_t kMaxExchange = 250; // keys of one MULTI, for which others wait
inline constexpr std::int64_t kNoExpiry = std::numeric_limits<std::int64_t>::max();

enum class ItemKind : std::uint8_t {
	absent,     // gone: nil and no expiry of a key that is not there, in one transaction
	value,      // a string: value, size, expire_ms
	other_type, // type_name says which; expire_ms is known
	too_large,  // value holds its first bytes, size all of it; expire_ms is known
	error,      // not known this time: put it back
};

// One key as it was read. Views are into the feed's memory: valid until the next fetch(), commit()
// or put_back_all().
struct Item {
	std::string_view key;
	std::string_view sid; // the key without the prefix; any bytes: see core::check_sid
	std::string_view value;
	std::string_view type_name;
	std::uint64_t size = 0;
	std::int64_t expire_ms = kNoExpiry; // milliseconds since 1970, or kNoExpiry
	ItemKind kind = ItemKind::error;
	// Absent, and Redis said that it evicted it since it was last read as a value.
	bool evicted = false;
};
static_assert(std::is_trivially_destructible_v<Item>);

// Why a comparison is needed; gap() is any number of them.
enum Gap : unsigned {
	kGapNone = 0,
	kGapConnected = 1, // a new connection: hints before it are lost
	kGapFlushed = 2,   // a database was flushed, or the data set replaced
	kGapSwapped = 4,   // SWAPDB
	kGapIdentity = 8,  // another run id or replication id than this feed has seen before
	kGapOverflow = 16, // the dirty set was full
	kGapUnheard = 32,  // Redis stopped to announce changes
};
// Those that break continuity: what is absent may have been lost rather than ended.
inline constexpr unsigned kGapBreaksContinuity = kGapFlushed | kGapSwapped | kGapIdentity;

// How changes are noticed.
enum class Mode : std::uint8_t {
	tracking,        // client tracking, which announces everything but SWAPDB
	notifications,   // keyspace notifications, which know nothing of flushes
	comparison_only, // not at all
};

// A write to Redis that happens only while what it replaces is as the last fetch() read it. Of a
// value that stays, or an expiry that does, later changes are kept.
struct Push {
	std::size_t item; // its index in the last fetch(); of a value or of an absent one
	bool remove;
	std::string_view value; // the one that was read: only the expiry is written
	std::int64_t expire_ms; // kNoExpiry: none. One that is over means remove
	bool settles = false;   // then both sides agree, and nothing is left to be done about the key
};
static_assert(std::is_trivially_destructible_v<Push>);

enum class PushResult : std::uint8_t {
	done,
	changed, // it is not what was read any more, and nothing was written
	refused, // Redis refused to write, or the item is of a kind that cannot be pushed over
};

// What a Redis was when it was last seen, to tell at the next connection, also of another process,
// whether it is still the one that was followed.
struct Identity {
	std::string run_id; // empty: never seen
	std::string replication_id;
	std::int64_t swapdb_calls = 0;
	std::int64_t flush_calls = 0;
};

struct FeedLimits {
	core::DirtySet::Limits dirty;
	std::size_t filter_bytes = std::size_t{256} << 20;
	std::size_t max_value = std::size_t{255} << 20;    // larger ones are too_large
	std::size_t too_large_head = std::size_t{1} << 20; // of which this much is read
	std::size_t small_bytes = std::size_t{16} << 10;   // up to here values are read without asking
	std::size_t single_bytes = std::size_t{4} << 20;   // a value larger than this is read alone
	std::size_t exchange_bytes = std::size_t{8} << 20; // expected of one MULTI
	std::size_t batch_bytes = std::size_t{16} << 20;   // of one fetch(), unless one value is larger
	std::size_t scan_backlog = 10'000; // scan_step() waits while this many are dirty
	std::chrono::milliseconds ping_interval{2000};
	std::chrono::milliseconds poll_interval{1000};
};

struct FeedCounters {
	std::uint64_t hints = 0; // keys that invalidation messages named, prefix matched
	std::uint64_t evictions = 0;
	std::uint64_t gaps = 0;     // times a gap was noticed
	std::uint64_t connects = 0; // successful connect()s
	std::uint64_t fetched = 0;  // keys read
	std::uint64_t echoes = 0;   // of which held what had been pushed, and nothing else was asked
	std::uint64_t fetched_bytes = 0;
	std::uint64_t scanned = 0;       // keys under the prefix, so far in this or at the last SCAN
	std::int64_t other_keys = -1;    // keys of the database outside the prefix at the last SCAN
	std::int64_t prefix_keys = -1;   // keys under the prefix at the last finished SCAN
	std::int64_t database_keys = -1; // DBSIZE at the last poll
};
static_assert(std::is_trivially_destructible_v<FeedCounters>);

} // namespace session_store::redis
