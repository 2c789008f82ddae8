// A connection to a store's Redis for one call of a person, or one scheduled verification.
#pragma once

#include "mirror/probe_link.h"
#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

// How to reach the Redis of the store, for links; the password is in it. ERROR when the store has
// no redis_server, or its options cannot be read. `owner` is that of its table.
FeedOptions probe_options(const StoreSettings *store, Oid owner);
void forget_probe_password(FeedOptions *options);

// Connects, and forgets the password; false with `error` filled when Redis is not to be reached.
// The connection is closed with the current memory context at the latest, so also by an error.
// Needs no transaction.
bool connect_probe(FeedOptions *options, FeedError *error);
// Options and connection in one; ERROR when Redis is not to be reached.
void open_probe(const StoreSettings *store, Oid owner);
void close_probe();

// After a call of the link: an ERROR when it failed, and interrupts.
void require_probe(bool done, const FeedError *error);

} // namespace session_store
