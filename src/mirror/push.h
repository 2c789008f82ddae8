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

enum class PushEnd : uint8_t { sent, feed_failed };
// Sends what the rows want and says of each whether Redis took it; `changed` is true where Redis
// had moved on. Never within a transaction.
PushEnd send_pushes(MirrorRow **rows, int count, bool *changed, FeedError *error);

} // namespace session_store
