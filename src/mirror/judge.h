// Whether a store can hold what Redis holds, and as which value.
#pragma once

#include "core/decide.h"
#include "mirror/feed_link.h"
#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

// What one read of Redis means to a store.
struct Judged {
	core::RedisState state;
	bool valid_sid;     // sid is set
	Datum sid;          // text
	Datum sess;         // jsonb or bytea, when state is value; 0 while it has not been converted
	TimestampTz expire; // when state is value; infinity without a TTL
	const char *reason; // when state is rejected or other_type
};

// Whether broken JSON is told by looking first, or raised by converting it, which is faster where
// there is none.
enum class Look : uint8_t { never, first };

// Both allocate in the current memory context.

// Judges one item, but for whether the payload of a value is one that the store can hold. `forced`,
// unless null, is why it cannot be stored, which an earlier try has found out.
void judge_item(const FeedItem *item, const char *forced, Judged *judged);
// Converts the payload of a value, unless that has been done: sets sess, or the reason why there is
// none. Raises what the conversion raises (a number out of range, nesting too deep), but not broken
// encoding, nor, when it looks first, broken JSON and \u0000.
void convert_payload(const FeedItem *item, Payload payload, Look look, Judged *judged);

} // namespace session_store
