// The statements that a mirror runs on a session table.
#pragma once

#include "core/decide.h"
#include "mirror/judge.h"
#include "mirror/target.h"
#include "postgres/pg.h"

namespace session_store {

// One key on its way from Redis, and the row of its sid.
struct PulledRow {
	const FeedItem *item;
	int index; // of the item in its fetch
	int order; // of this in its batch, which is sorted by sid
	Judged judged;
	bool in_table;
	Datum sess; // of the row, when in_table
	bool sess_is_null;
	TimestampTz expire; // likewise
	core::Decision decision;
};

enum class RowPlan : uint8_t { read, lock, upsert, touch, remove, walk };

// All of these: in a transaction with an SPI connection, as the owner of the table, the target
// opened. Rows come sorted by sid. What is allocated is in the current memory context.

// Sets in_table, sess and expire of the rows that are there; with RowPlan::lock only of those that
// nobody else holds locked, which are then locked by us. Rows without a valid sid are left out.
void read_rows(const MirrorTarget *target, RowPlan plan, PulledRow **rows, int count);
void upsert_rows(const MirrorTarget *target, PulledRow **rows, int count);
// Writes the expiry alone.
void touch_rows(const MirrorTarget *target, PulledRow **rows, int count);
void remove_rows(const MirrorTarget *target, PulledRow **rows, int count);

// The live sids after `after`, at most `limit`, in order.
int walk_sids(const MirrorTarget *target, Datum after, int limit, Datum **sids);

// How the row differs from what Redis holds. A row that is past its expiry and differs is none.
core::PostgresState compare_row(const PulledRow *row, Payload payload, TimestampTz now);

} // namespace session_store
