// Writing the outbox.
//
// Rows are numbered by the transaction and within it, so that the mirror can read what two
// snapshots differ by, whatever the order of the commits. They are inserted without a statement: no
// user has rights on the table, and nothing of a user's runs on it.
#include "store/outbox.h"

#include "store/row_number.h"
#include "worker/shared_state.h"

extern "C" {
#include "common/hashfn.h"
}

namespace session_store {

namespace {

enum OutboxColumn {
	kStoreId = 1,
	kSeq,
	kXid,
	kSidHash,
	kSid,
	kPayloadDigest,
	kBaseExpire,
	kEnded,
	kWrittenAt,
	kOutboxColumns = kWrittenAt,
};

constexpr uint64 kDigestSeed = 0;
constexpr int kMostWoken = 8;

// The stores that the transaction wrote, whose mirrors are woken when it has committed.
int32 written_stores[kMostWoken];
int written_count = 0;
bool callback_registered = false;

void wake_mirrors_at_commit(XactEvent event, void *) {
	if (event == XACT_EVENT_COMMIT)
		for (int i = 0; i < written_count; i++)
			wake_mirror(MyDatabaseId, written_stores[i]);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		written_count = 0;
}

// Beyond kMostWoken stores a mirror finds its rows by itself, at its next look.
void wake_at_commit(int32 store_id) {
	for (int i = 0; i < written_count; i++)
		if (written_stores[i] == store_id)
			return;
	if (written_count == kMostWoken || !shared_state_available())
		return;
	if (!callback_registered) {
		RegisterXactCallback(wake_mirrors_at_commit, nullptr);
		callback_registered = true;
	}
	written_stores[written_count++] = store_id;
}

int64 hash_of(Datum value, uint64 seed) {
	auto *bytes = DatumGetByteaPP(value);
	const uint64 hash = hash_bytes_extended(reinterpret_cast<unsigned char *>(VARDATA_ANY(bytes)),
		static_cast<int>(VARSIZE_ANY_EXHDR(bytes)), seed);
	if (PointerGetDatum(bytes) != value)
		pfree(bytes);
	return static_cast<int64>(hash);
}

bool is_copied_to_redis(const Store *store, WriteOrigin origin) {
	return is_dual(store->settings.phase) && origin != WriteOrigin::mirror &&
		store_is_bound_here(&store->settings);
}

// `values` holds payload_digest, base_expire and ended.
void write_row(const Store *store, Datum sid, TimestampTz now, Datum *values, bool *nulls) {
	values[kStoreId - 1] = Int32GetDatum(store->settings.id);
	values[kSidHash - 1] = Int64GetDatum(outbox_sid_hash(store->settings.id, sid));
	values[kSid - 1] = sid;
	values[kWrittenAt - 1] = TimestampTzGetDatum(now);
	const RowNumber number = next_row_number();
	values[kXid - 1] = Int64GetDatum(number.xid);
	values[kSeq - 1] = Int32GetDatum(number.seq);
	Relation outbox = table_open(extension_table("outbox"), RowExclusiveLock);
	HeapTuple row = heap_form_tuple(RelationGetDescr(outbox), values, nulls);
	CatalogTupleInsert(outbox, row);
	heap_freetuple(row);
	table_close(outbox, RowExclusiveLock);
	wake_at_commit(store->settings.id);
}

} // namespace

void note_change(const Store *store, WriteOrigin origin, const SessionRow *before,
	const SessionRow *after, bool payload_changed, TimestampTz now) {
	const bool was_live = before != nullptr && before->expire > now;
	if (!is_copied_to_redis(store, origin) || (!was_live && after->expire <= now))
		return;
	Datum values[kOutboxColumns] = {};
	bool nulls[kOutboxColumns] = {};
	nulls[kPayloadDigest - 1] = !was_live || !payload_changed;
	if (was_live && payload_changed)
		values[kPayloadDigest - 1] = Int64GetDatum(payload_digest(before->sess));
	nulls[kBaseExpire - 1] = !was_live;
	if (was_live)
		values[kBaseExpire - 1] = TimestampTzGetDatum(before->expire);
	write_row(store, after->sid, now, values, nulls);
}

void note_end(const Store *store, WriteOrigin origin, Datum sid, TimestampTz now) {
	if (!is_copied_to_redis(store, origin))
		return;
	Datum values[kOutboxColumns] = {};
	bool nulls[kOutboxColumns] = {};
	nulls[kPayloadDigest - 1] = nulls[kBaseExpire - 1] = true;
	values[kEnded - 1] = BoolGetDatum(true);
	write_row(store, sid, now, values, nulls);
}

int64 payload_digest(Datum sess) {
	return hash_of(sess, kDigestSeed);
}

int64 outbox_sid_hash(int32 store_id, Datum sid) {
	return hash_of(sid, static_cast<uint64>(store_id));
}

} // namespace session_store
