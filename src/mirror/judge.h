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
	Datum sess;         // jsonb or bytea, when state is value
	TimestampTz expire; // when state is value; infinity without a TTL
	const char *reason; // when state is rejected or other_type
};

// Whether broken JSON is told by looking first, or raised by converting it, which is faster where
// there is none.
enum class Look : uint8_t { never, first };

// Judges one item; allocates in the current memory context. Raises what converting the payload
// raises (a number out of range, nesting too deep), but not broken encoding, nor, when it looks
// first, broken JSON and \u0000. `forced`, unless null, is why it cannot be stored, which an
// earlier try has found out.
void judge_item(
	const FeedItem *item, Payload payload, Look look, const char *forced, Judged *judged);

} // namespace session_store
