// The outbox: what changed in PostgreSQL and is to be copied to Redis.
//
// Written in the transaction that writes the session, in the dual phases only. A row says what the
// write replaced, see core/decide.h; the session itself is read when it is copied.
#pragma once

#include "store/row_rules.h"

namespace session_store {

// A row was inserted (`before` is null) or updated. Nothing is written outside the dual phases, for
// what the mirror itself writes, or where neither row is live.
void note_change(const Store *store, WriteOrigin origin, const SessionRow *before,
	const SessionRow *after, bool payload_changed, TimestampTz now);
// A live row was removed: a logout.
void note_end(const Store *store, WriteOrigin origin, Datum sid, TimestampTz now);

// What both sides of a payload are compared by where only one of them is at hand.
int64 payload_digest(Datum sess);
// What the rows of a sid are found by; others may have the same.
int64 outbox_sid_hash(int32 store_id, Datum sid);

} // namespace session_store
