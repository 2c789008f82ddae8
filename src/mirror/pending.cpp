// Looking up what there is about sids beside their rows.
#include "mirror/pending.h"

#include "postgres/identity.h"
#include "store/outbox.h"

namespace session_store {

namespace {

constexpr int kFirstRows = 2;

enum OutboxColumn { kStoreId = 1, kSeq, kXid, kSid = 5 };
enum TombstoneColumn { kEndedAt = 3, kByRedis = 4 };

// What counts of a row is that it is the first, that it has the digest of the payload that both
// sides knew, and that the session was ended.
constexpr const char *kCoalesce =
	"DELETE FROM session_store.outbox AS o USING (SELECT place FROM (SELECT ctid AS place, ended,"
	" payload_digest IS NOT NULL AS has_digest, pg_catalog.row_number() OVER w AS number,"
	" pg_catalog.count(payload_digest) OVER earlier AS digests,"
	" pg_catalog.bool_or(ended) OVER earlier AS had_ended"
	" FROM session_store.outbox WHERE store_id = $1 AND xid >= $2"
	" WINDOW w AS (PARTITION BY sid ORDER BY xid, seq),"
	" earlier AS (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS rows"
	" WHERE number > 1 AND (NOT has_digest OR digests > 0) AND (NOT ended OR had_ended)) AS "
	"redundant"
	" WHERE o.ctid = redundant.place";

// Rows of the outbox of one sid, growing.
struct Found {
	OutboxRow *rows;
	int count;
	int capacity;
	MemoryContext context;
};

void add_outbox_row(Found *found, ExtensionScan *scan) {
	if (found->count == found->capacity) {
		found->capacity = Max(found->capacity * 2, kFirstRows);
		const Size size = found->capacity * sizeof(OutboxRow);
		found->rows = static_cast<OutboxRow *>(found->rows == nullptr
				? MemoryContextAlloc(found->context, size)
				: repalloc(found->rows, size));
	}
	found->rows[found->count++] = outbox_row(scan);
}

// Another sid may have the same hash.
bool is_row_of(ExtensionScan *scan, int32 store_id, Datum sid) {
	bool is_null;
	if (DatumGetInt32(row_value(scan, kStoreId, &is_null)) != store_id)
		return false;
	const auto *one = DatumGetTextPP(row_value(scan, kSid, &is_null));
	const auto *other = DatumGetTextPP(sid);
	const Size size = VARSIZE_ANY_EXHDR(one);
	return size == VARSIZE_ANY_EXHDR(other) &&
		memcmp(VARDATA_ANY(one), VARDATA_ANY(other), size) == 0;
}

void find_outbox_rows(ExtensionScan *scan, int32 store_id, const MirrorRow *row,
	StrategyNumber strategy, uint64 xid, Found *found) {
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(row->sid_hash));
	ScanKeyInit(&keys[1], 2, strategy, strategy == BTEqualStrategyNumber ? F_INT8EQ : F_INT8GE,
		Int64GetDatum(static_cast<int64>(xid)));
	look_up(scan, keys);
	while (next_row(scan))
		if (is_row_of(scan, store_id, row->judged.sid))
			add_outbox_row(found, scan);
}

void look_up_sid(ExtensionScan *scan, int32 store_id, Datum sid) {
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(store_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, sid);
	look_up(scan, keys);
}

// One that is gone already does no harm, nor does another that has its place by now. Only whoever
// runs the mirror of the store removes any.
void remove_outbox_row(Relation outbox, TupleTableSlot *slot, int32 store_id, OutboxRow *row) {
	if (!table_tuple_fetch_row_version(outbox, &row->position, SnapshotAny, slot))
		return;
	bool is_null;
	if (DatumGetInt32(slot_getattr(slot, kStoreId, &is_null)) != store_id ||
		DatumGetInt32(slot_getattr(slot, kSeq, &is_null)) != row->seq ||
		static_cast<uint64>(DatumGetInt64(slot_getattr(slot, kXid, &is_null))) != row->xid)
		return;
	TM_FailureData failure;
	(void)heap_delete(
		outbox, &row->position, GetCurrentCommandId(true), InvalidSnapshot, true, &failure, false);
}

// Runs a statement about the sids of the rows, as the extension's owner.
void execute_for_sids(const char *sql, int32 store_id, MirrorRow **rows, int count) {
	if (count == 0)
		return;
	auto *sids = static_cast<Datum *>(palloc(count * sizeof(Datum)));
	for (int i = 0; i < count; i++)
		sids[i] = rows[i]->judged.sid;
	Oid types[] = {INT4OID, TEXTARRAYOID};
	Datum values[] = {Int32GetDatum(store_id),
		PointerGetDatum(construct_array(sids, count, TEXTOID, -1, false, TYPALIGN_INT))};
	const Identity saved = enter_extension_owner();
	const int result = SPI_execute_with_args(sql, 2, types, values, nullptr, false, 0);
	if (result < 0)
		elog(ERROR, "%s: %s", sql, SPI_result_code_string(result));
	leave_identity(&saved);
}

// How many rows of a store there are, and the time of the first.
Backlog count_rows(const char *sql, int32 store_id, uint64 xid, int32 seq) {
	Oid types[] = {INT4OID, INT8OID, INT4OID};
	Datum values[] = {
		Int32GetDatum(store_id), Int64GetDatum(static_cast<int64>(xid)), Int32GetDatum(seq)};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(sql, 3, types, values, nullptr, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "%s failed", sql);
	bool is_null;
	HeapTuple row = SPI_tuptable->vals[0];
	Backlog result = {DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &is_null)), 0};
	const Datum first = SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &is_null);
	if (!is_null)
		result.oldest = DatumGetTimestampTz(first);
	SPI_finish();
	leave_identity(&saved);
	return result;
}

const KnownRows *find_known_rows(const OutboxReader *reader, const MirrorRow *row) {
	return find_known(&reader->known, row->sid_hash, row->item->sid);
}

} // namespace

bool is_known_pending(const OutboxReader *reader, const MirrorRow *row) {
	const KnownRows *known = row->judged.valid_sid ? find_known_rows(reader, row) : nullptr;
	return known != nullptr && !known->ended;
}

// A later transaction would have left the row to itself, or removed it.
bool take_known_pending(const OutboxReader *reader, MirrorRow *row, MemoryContext context) {
	const KnownRows *known = find_known_rows(reader, row);
	if (known == nullptr || !row->in_table || !TransactionIdIsNormal(row->writer) ||
		row->writer != static_cast<TransactionId>(known->newest_xid) ||
		!has_read(reader, known->newest_xid))
		return false;
	const Size size = known->count * sizeof(OutboxRow);
	row->pending = static_cast<OutboxRow *>(MemoryContextAlloc(context, size));
	memcpy(row->pending, known->rows, size);
	row->pending_count = known->count;
	return true;
}

void read_pending(const OutboxReader *reader, int32 store_id, MirrorRow **rows, int count,
	MemoryContext context) {
	if (count == 0)
		return;
	const OutboxRange range = unsettled_range(reader);
	ExtensionScan scan = open_extension_scan("outbox", "outbox_sid", 2);
	for (int i = 0; i < count; i++) {
		MirrorRow *row = rows[i];
		Found found = {nullptr, 0, 0, context};
		if (row->judged.valid_sid) {
			for (int j = 0; j < range.count; j++)
				find_outbox_rows(
					&scan, store_id, row, BTEqualStrategyNumber, range.others[j], &found);
			find_outbox_rows(
				&scan, store_id, row, BTGreaterEqualStrategyNumber, range.from, &found);
		}
		row->pending = found.rows;
		row->pending_count = found.count;
	}
	close_extension_scan(&scan);
}

// The commit waits for the disk: if a crash took it back, what Redis did since would be taken for
// older than what is pending, and a logout there be undone.
void remove_pending(OutboxReader *reader, int32 store_id, MirrorRow **rows, int count) {
	ForceSyncCommit();
	Relation outbox = table_open(extension_table("outbox"), RowExclusiveLock);
	const Oid file = reader->file;
	check_outbox_file(reader, outbox);
	if (file == reader->file) { // else they are read again
		TupleTableSlot *slot = table_slot_create(outbox, nullptr);
		for (int i = 0; i < count; i++) {
			for (int j = 0; j < rows[i]->pending_count; j++)
				remove_outbox_row(outbox, slot, store_id, &rows[i]->pending[j]);
			rows[i]->pending_count = 0;
			rows[i]->pending_removed = true;
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	table_close(outbox, RowExclusiveLock);
}

void forget_removed(OutboxReader *reader, MirrorRow *row) {
	if (row->pending_removed)
		forget_known(&reader->known, row->sid_hash, row->item->sid);
	row->pending_removed = false;
}

void read_tombstones(const StoreSettings *store, MirrorRow **rows, int count, TimestampTz now) {
	if (count == 0)
		return;
	ExtensionScan scan = open_extension_scan("tombstones", "tombstones_pkey", 2);
	for (int i = 0; i < count; i++) {
		rows[i]->tombstone = core::Tombstone::none;
		look_up_sid(&scan, store->id, rows[i]->judged.sid);
		if (!next_row(&scan))
			continue;
		bool is_null;
		const TimestampTz ended_at = DatumGetTimestampTz(row_value(&scan, kEndedAt, &is_null));
		if (ended_at + store->logout_guard <= now)
			continue;
		rows[i]->tombstone = DatumGetBool(row_value(&scan, kByRedis, &is_null))
			? core::Tombstone::by_redis
			: core::Tombstone::by_postgres;
	}
	close_extension_scan(&scan);
}

void write_tombstones(int32 store_id, MirrorRow **rows, int count) {
	execute_for_sids("INSERT INTO session_store.tombstones (store_id, sid, ended_at, by_redis)"
					 " SELECT $1, sid, pg_catalog.clock_timestamp(), true"
					 " FROM pg_catalog.unnest($2) AS sid ORDER BY sid"
					 " ON CONFLICT (store_id, sid) DO UPDATE"
					 " SET ended_at = excluded.ended_at, by_redis = true",
		store_id, rows, count);
}

void remove_tombstones(int32 store_id, MirrorRow **rows, int count) {
	execute_for_sids("DELETE FROM session_store.tombstones WHERE store_id = $1 AND sid = ANY ($2)",
		store_id, rows, count);
}

KeptEvictions open_kept_evictions(int32 store_id) {
	return {open_extension_scan("kept_evictions", "kept_evictions_pkey", 2), store_id};
}

bool is_kept_eviction(KeptEvictions *kept, Datum sid) {
	look_up_sid(&kept->scan, kept->store_id, sid);
	return next_row(&kept->scan);
}

void close_kept_evictions(KeptEvictions *kept) {
	close_extension_scan(&kept->scan);
}

void read_evictions(int32 store_id, MirrorRow **rows, int count) {
	if (count == 0)
		return;
	KeptEvictions kept = open_kept_evictions(store_id);
	for (int i = 0; i < count; i++)
		rows[i]->evicted = is_kept_eviction(&kept, rows[i]->judged.sid);
	close_kept_evictions(&kept);
}

void keep_evictions(int32 store_id, MirrorRow **rows, int count) {
	execute_for_sids(
		"INSERT INTO session_store.kept_evictions (store_id, sid, evicted_at)"
		" SELECT $1, sid, pg_catalog.clock_timestamp() FROM pg_catalog.unnest($2) AS sid"
		" ON CONFLICT DO NOTHING",
		store_id, rows, count);
}

void forget_evictions(int32 store_id, MirrorRow **rows, int count) {
	execute_for_sids(
		"DELETE FROM session_store.kept_evictions WHERE store_id = $1 AND sid = ANY ($2)", store_id,
		rows, count);
}

int64 count_evictions(int32 store_id) {
	const Backlog kept = count_rows("SELECT pg_catalog.count(*), pg_catalog.min(evicted_at)"
									" FROM session_store.kept_evictions WHERE store_id = $1",
		store_id, 0, 0);
	return kept.rows;
}

Backlog count_backlog(int32 store_id, uint64 xid, int32 seq) {
	return count_rows("SELECT pg_catalog.count(*), pg_catalog.min(written_at) FROM"
					  " (SELECT written_at FROM session_store.outbox"
					  " WHERE store_id = $1 AND (xid, seq) > ($2, $3)"
					  " ORDER BY xid, seq LIMIT 100000) AS waiting",
		store_id, xid, seq);
}

bool coalesce_outbox(int32 store_id, uint64 xid) {
	Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(store_id), Int64GetDatum(static_cast<int64>(xid))};
	const Identity saved = enter_extension_owner();
	SPI_connect();
	if (SPI_execute_with_args(kCoalesce, 2, types, values, nullptr, false, 0) < 0)
		elog(ERROR, "could not coalesce the outbox");
	const bool removed = SPI_processed > 0;
	SPI_finish();
	leave_identity(&saved);
	return removed;
}

} // namespace session_store
