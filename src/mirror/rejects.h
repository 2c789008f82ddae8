// session_store.rejected_keys: the Redis keys that a store cannot hold.
#pragma once

#include "mirror/feed_link.h"
#include "postgres/pg.h"
#include "worker/worker.h"

namespace session_store {

// Rows kept for a store; further keys are counted, as far as memory for them is set aside.
inline constexpr int64 kMaxRejects = 10000;
inline constexpr size_t kMaxRejectedPayload = size_t{1} << 20;

struct RejectedKey {
	const FeedItem *item;
	const char *reason;
};

// Within a transaction and an SPI connection, as any user: writes what is rejected now, and removes
// the rows of the keys that are not, or not any more.
void write_rejects(int32 store_id, const RejectedKey *keys, int count);
void clear_rejects(int32 store_id, const FeedItem *const *items, int count);
// After an error: what is in memory may be ahead of what is in the table.
void forget_rejects_count();

// Marks as candidates the rejected keys that the SCAN did not report, so that the row of a key that
// is gone goes too; removes rows outside the prefix. Reads in a transaction of its own.
enum class MarkResult : uint8_t { done, feed_failed, database_failed };
MarkResult mark_unseen_rejects(
	int32 store_id, const char *prefix, FeedError *error, WorkerFailure *failure);

// Keys beyond kMaxRejects.
int64 rejects_over_limit();

} // namespace session_store
