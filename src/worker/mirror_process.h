// The state of a mirror process, shared by the files that make it up. There is one per process.
#pragma once

#include "mirror/apply.h"
#include "mirror/comparison.h"
#include "mirror/outbox_reader.h"
#include "mirror/pending.h"
#include "mirror/target.h"
#include "worker/shared_state.h"
#include "worker/worker.h"

namespace session_store {

inline constexpr int64 kMicrosecondsPerMs = 1000;
// Between two tries while Redis fails or refuses: both sides are equal a second after it does not.
inline constexpr int kLongestPauseMs = 300;
// A table that was emptied or replaced tells nobody: it is looked at so often.
inline constexpr int kRefreshMs = 500;

// Whether all that both sides had accepted at a time is copied. Somebody may wait for that.
struct BarrierWatch {
	uint64 number;        // 0: nobody waits
	TimestampTz asked_at; // 0: nothing is watched
	bool pinged;          // Redis' side of it is under way
};

// Made once per process, in TopMemoryContext's life.
struct Mirror {
	MirrorTarget target;
	Comparison comparison;
	OutboxReader outbox;
	BarrierWatch barrier;
	TimestampTz copied_until; // all that was accepted by then is copied
	MemoryContext turn;       // reset each turn
	MemoryContext scratch;    // of applying: reset for each transaction
	MemoryContext kept;       // of applying: reset for each batch
	bool known;               // target.store and memory have been read
	MirrorMemory memory;
	int64 evictions;        // rows kept though Redis evicted them
	Backlog backlog;        // of the outbox that is not read yet, when last counted
	TimestampTz counted_at; // that, while Redis was there
	uint64 away_since; // no transaction from this one on was pushed: Redis is away; 0: it is not
	TimestampTz coalesced_at;
	Oid file;         // of the table: another one after TRUNCATE
	bool old_writers; // transactions may write that know an earlier phase only
	bool leaving;     // the phase is over: what is pending is still copied
	TimestampTz leaves_at;
	TimestampTz refreshed_at;
	TimestampTz leased_at;
	TimestampTz compared_at;
	bool comparison_wanted;
	bool continuity_broken; // until a comparison has answered it
	bool refill_wanted;
	bool mass_delete_allowed;
	unsigned feed_failures; // of the connection, since it was last of use
	unsigned apply_failures;
	unsigned compare_failures;
	TimestampTz paused_until; // after a failure in the database
};

extern Mirror *mirror;

int mirror_backoff_ms(unsigned failures);
TimestampTz after_ms(int milliseconds);

// mirror_refresh.cpp: what the store is now. Ends the process when no mirror is wanted any more.
void refresh_if_due();
// The process ends; the supervisor, which sees the same, says what state the store is in.
[[noreturn]] void leave_mirror();

// mirror_connect.cpp: the connection, and the lease by which no other mirror follows the same keys.
void watch_options();
void connect_mirror();
// Makes the feed fit the options when they have changed.
void reconfigure_if_needed();
// False when the connection was given up.
bool keep_lease();
void give_up_lease();
void drop_feed();
// Says what went wrong with Redis; the connection is lost.
void note_feed_error(const FeedError *error);

} // namespace session_store
