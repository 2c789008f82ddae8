// A session on its way through a mirror, and the statements that it runs on the session table.
#pragma once

#include "core/decide.h"
#include "mirror/judge.h"
#include "mirror/known_outbox.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

// What goes to Redis.
struct Push {
	bool wanted;
	bool removes;
	bool settles; // nothing is left to be done about the sid then
	const char *value;
	size_t size;
	TimestampTz expire;
};

// One sid: what Redis holds, what PostgreSQL holds, and what becomes of it.
struct MirrorRow {
	const FeedItem *item;
	int index; // of the item in its fetch
	int order; // of this in its batch, which is sorted by sid
	Judged judged;
	int64 sid_hash; // of the outbox, where the sid is valid
	bool in_table;
	Datum sess; // of the row, when in_table
	bool sess_is_null;
	TimestampTz expire;   // likewise
	TransactionId writer; // likewise; invalid where reading does not tell
	OutboxRow *pending;
	int pending_count;
	bool pending_removed; // not for sure before the commit
	core::Tombstone tombstone;
	bool evicted; // it is kept though Redis evicted it
	core::Decision decision;
	Push push;
};

enum class RowPlan : uint8_t {
	read,
	lock,
	insert,
	insert_partitioned,
	update,
	touch,
	remove,
	walk
};

// All of these: in a transaction with an SPI connection, as the owner of the table, the target
// opened. Rows come sorted by sid. What is allocated is in the current memory context.

// Sets in_table, sess, expire and writer of the rows that are there; with RowPlan::lock only of
// those that nobody else holds locked or has just changed, which are then locked by us. Rows
// without a valid sid are left out.
void read_rows(const MirrorTarget *target, RowPlan plan, MirrorRow **rows, int count);
// Inserts what Redis holds. ERROR serialization_failure when somebody else was faster; unless
// `carefully`, that may be unique_violation.
void insert_rows(const MirrorTarget *target, MirrorRow **rows, int count, bool carefully);
// Writes payload and expiry of rows that are there, each from the side that the decision says.
void update_rows(const MirrorTarget *target, MirrorRow **rows, int count);
// Writes the expiry alone.
void touch_rows(const MirrorTarget *target, MirrorRow **rows, int count);
void remove_rows(const MirrorTarget *target, MirrorRow **rows, int count);

// The live sids after `after`, at most `limit`, in order.
int walk_sids(const MirrorTarget *target, Datum after, int limit, Datum **sids);

// Whether a payload of the row is what Redis holds, by value.
bool same_payload(const MirrorRow *row, Payload payload);

} // namespace session_store
