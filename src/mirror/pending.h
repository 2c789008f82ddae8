// What a mirror looks up about sids beside their session rows: the outbox, tombstones, and the
// evictions that were kept.
#pragma once

#include "mirror/extension_scan.h"
#include "mirror/outbox_reader.h"
#include "mirror/rows.h"
#include "postgres/pg.h"

namespace session_store {

// All of these: within a transaction, as any user. Rows without a valid sid are passed over. What
// was committed before the call is seen.

// Sets `pending` of the rows, allocated in `context`.
void read_pending(
	const OutboxReader *reader, int32 store_id, MirrorRow **rows, int count, MemoryContext context);
// The same from what reading the outbox has shown, for a row that was read since. False when that
// may not be all.
bool take_known_pending(const OutboxReader *reader, MirrorRow *row, MemoryContext context);
// Whether that is worth trying.
bool is_known_pending(const OutboxReader *reader, const MirrorRow *row);
// Removes from the outbox what is pending. Once that is committed, forget_removed() is due.
void remove_pending(OutboxReader *reader, int32 store_id, MirrorRow **rows, int count);
void forget_removed(OutboxReader *reader, MirrorRow *row);

// Sets `tombstone` of the rows.
void read_tombstones(const StoreSettings *store, MirrorRow **rows, int count, TimestampTz now);
// Notes that the sessions ended in Redis.
void write_tombstones(int32 store_id, MirrorRow **rows, int count);
void remove_tombstones(int32 store_id, MirrorRow **rows, int count);

// Sets `evicted` of the rows.
void read_evictions(int32 store_id, MirrorRow **rows, int count);
void keep_evictions(int32 store_id, MirrorRow **rows, int count);
void forget_evictions(int32 store_id, MirrorRow **rows, int count);
int64 count_evictions(int32 store_id);

// What waits in the outbox from that place on: rows, counted up to 100,000, and since when the
// first does, 0 when none.
struct Backlog {
	int64 rows;
	TimestampTz oldest;
};
Backlog count_backlog(int32 store_id, uint64 xid, int32 seq);
// Removes what says nothing that an earlier row of the sid does not say, of the transactions from
// `xid` on, of which nothing may have been pushed: Redis holds none of the states between. Whether
// there was any.
bool coalesce_outbox(int32 store_id, uint64 xid);

// One after another.
struct KeptEvictions {
	ExtensionScan scan;
	int32 store_id;
};
KeptEvictions open_kept_evictions(int32 store_id);
bool is_kept_eviction(KeptEvictions *kept, Datum sid);
void close_kept_evictions(KeptEvictions *kept);

} // namespace session_store
