// Applying a batch of dirty sids: what Redis holds and what PostgreSQL holds become the same.
#pragma once

#include "mirror/feed_link.h"
#include "mirror/outbox_reader.h"
#include "mirror/situation.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

// What applying needs to know, and where it works.
struct ApplyContext {
	MirrorTarget *target;
	OutboxReader *outbox;
	MirrorStance stance;
	bool has_evictions;    // some row is kept though Redis evicted it
	MemoryContext scratch; // reset for each transaction
	MemoryContext kept;    // reset for each batch
};

// How a batch ended. Keys that are neither applied nor put back do not exist.
struct ApplyResult {
	int64 applied;    // rows written or removed
	int64 pushed;     // keys written or removed in Redis
	int64 conflicts;  // pushes that found Redis changed meanwhile
	int64 unchanged;  // read and found equal
	int64 held_redis; // deletes in Redis that wait for an answer
	int64 evictions;  // kept now, less those that are not any more
	int put_back;     // keys that somebody holds locked, or whose state was not known
	bool refused;     // Redis refused to write some
	bool failing;     // that, or something about the table itself stands in the way of all keys
	char message[256];
};

// Applies all items of the last feed_fetch(), in a few transactions unless something fails: then in
// halves, down to the key that is at fault, which goes to rejects. What is to go to Redis is sent
// after each commit, and what that settles in the outbox is removed in a transaction of its own.
// Keys whose row is locked are put back into the feed. False when the feed itself fails. The caller
// commits the feed.
bool apply_batch(const ApplyContext *context, const FeedItem *items, int count, ApplyResult *result,
	FeedError *error);

// What an error of a transaction of the mirror means.
enum class Trouble : uint8_t {
	row,  // about a value: it cannot be stored
	busy, // a lock, a cancel: try again soon
	table // about the table or the server: nothing can be stored for now
};
Trouble trouble_of(int sqlstate);

} // namespace session_store
