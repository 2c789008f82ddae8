// Applying a batch of what Redis holds to the table of a store.
#pragma once

#include "mirror/feed_link.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

// How a batch ended. Keys that are neither applied nor put back do not exist.
struct ApplyResult {
	int64 applied;   // rows written or removed
	int64 unchanged; // read and found equal
	int put_back;    // keys that somebody holds locked, or whose state was not known
	bool failing;    // something about the table itself stands in the way of all keys
	char message[256];
};

// Applies all items of the last feed_fetch(), in one transaction unless something fails: then in
// halves, down to the key that is at fault, which goes to rejects. Keys whose row is locked are put
// back into the feed. Everything it allocates is in `context`, which it resets. False when the feed
// itself fails. The caller commits the feed.
bool apply_batch(MirrorTarget *target, MemoryContext context, const FeedItem *items, int count,
	ApplyResult *result, FeedError *error);

// What an error of a transaction of the mirror means.
enum class Trouble : uint8_t {
	row,  // about a value: it cannot be stored
	busy, // a lock, a cancel: try again soon
	table // about the table or the server: nothing can be stored for now
};
Trouble trouble_of(int sqlstate);

} // namespace session_store
