// What Redis and PostgreSQL hold of some sids, in a form that can be compared.
#pragma once

#include "core/verify.h"
#include "mirror/feed_link.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

struct SeenSid {
	Datum sid; // text; 0 when the store cannot have it
	core::Sighting seen;
};

// A digest of a payload by value: equal for equal jsonb however it is written. Seeded, so that
// nobody can prepare two payloads of one digest.
uint64 payload_digest(Payload payload, Datum sess, uint64 seed);

// Judges the items of one read of Redis: sid and the Redis half of each. Within a transaction;
// allocates in the current memory context.
void see_redis(
	const MirrorTarget *target, uint64 seed, const FeedItem *items, int count, SeenSid *seen);

// Adds the PostgreSQL half of those that have a sid, as it is now, and sorts by sid those without
// one to the front. Within an SPI connection, as the table's owner.
void see_postgres(const MirrorTarget *target, uint64 seed, SeenSid *seen, int count);

// By bytes, as COLLATE "C" does.
int compare_sids(Datum a, Datum b);

} // namespace session_store
