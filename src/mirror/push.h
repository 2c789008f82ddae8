// The way to Redis: what a batch has to write there.
#pragma once

#include "mirror/feed_link.h"
#include "mirror/rows.h"
#include "postgres/pg.h"

namespace session_store {

// Bytes of payloads that one batch holds for Redis, unless a single one is larger.
inline constexpr size_t kPushBytes = size_t{16} << 20;

// Sets `push` of a row that was decided to go to Redis; its payload goes to `kept`. Within the
// transaction that decided.
void prepare_push(MirrorRow *row, Payload payload, MemoryContext kept);

// Begins to send what the rows want. Never within a transaction. False when the feed failed.
bool start_pushes(MirrorRow **rows, int count, FeedError *error);
// Waits for all that was begun, of these rows in this order, and says of each whether Redis took
// it; `changed` is true where Redis had moved on. Likewise.
bool finish_pushes(int count, bool *changed, FeedError *error);

} // namespace session_store
