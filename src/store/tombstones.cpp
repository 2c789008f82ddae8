// Tombstones.
//
// Writers of one sid's tombstone are serialized by the row lock on the session they end. They run
// as the extension's owner, since no user has rights on the table; its plans hold no user's code.
#include "store/tombstones.h"

#include "postgres/compat.h"

extern "C" {
#include "utils/snapmgr.h"
}

namespace session_store {

namespace {

constexpr const char *kWriteTombstone =
	"INSERT INTO session_store.tombstones AS t (store_id, sid, ended_at, by_redis) VALUES ($1, $2, "
	"$3, false) "
	"ON CONFLICT (store_id, sid) DO UPDATE SET ended_at = excluded.ended_at, by_redis = false";
constexpr const char *kRemoveTombstone =
	"DELETE FROM session_store.tombstones WHERE store_id = $1 AND sid = $2";
constexpr const char *kRemoveTombstones =
	"DELETE FROM session_store.tombstones WHERE store_id = $1";

SPIPlanPtr write_plan = nullptr;
SPIPlanPtr remove_plan = nullptr;
SPIPlanPtr remove_all_plan = nullptr;

void run_as_extension(SPIPlanPtr *plan, const char *sql, int arguments, Datum *values) {
	static const Oid types[] = {INT4OID, TEXTOID, TIMESTAMPTZOID};
	Oid user;
	int context;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(extension_owner(), context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (*plan == nullptr) {
		SPIPlanPtr prepared = SPI_prepare(sql, arguments, const_cast<Oid *>(types));
		if (prepared == nullptr)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(prepared);
		*plan = prepared;
	}
	if (SPI_execute_plan(*plan, values, nullptr, false, 0) < 0)
		elog(ERROR, "could not write a tombstone: %s", SPI_result_code_string(SPI_result));
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}

// The transaction that is writing or removing the tombstone just now, or InvalidTransactionId with
// *ended filled.
TransactionId look_up(Relation table, Relation index, const StoreSettings *settings, Datum sid,
	TimestampTz now, bool *ended) {
	SnapshotData dirty;
	InitDirtySnapshot(dirty);
	TupleTableSlot *slot = table_slot_create(table, nullptr);
	IndexScanDesc scan = begin_index_scan(table, index, &dirty, 2);
	ScanKeyData keys[2];
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(settings->id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, sid);
	index_rescan(scan, keys, 2, nullptr, 0);
	TransactionId wait_for = InvalidTransactionId;
	*ended = false;
	if (index_getnext_slot(scan, ForwardScanDirection, slot)) {
		wait_for = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		bool is_null;
		TimestampTz ended_at = DatumGetTimestampTz(slot_getattr(slot, 3, &is_null));
		*ended = ended_at + settings->logout_guard > now;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return wait_for;
}

} // namespace

void write_tombstone(const StoreSettings *settings, Datum sid, TimestampTz now) {
	Datum values[] = {Int32GetDatum(settings->id), sid, TimestampTzGetDatum(now)};
	run_as_extension(&write_plan, kWriteTombstone, 3, values);
}

bool was_ended(const StoreSettings *settings, Datum sid, TimestampTz now) {
	Relation table = table_open(extension_table("tombstones"), AccessShareLock);
	Relation index = index_open(extension_table("tombstones_pkey"), AccessShareLock);
	bool ended;
	for (;;) {
		TransactionId writer = look_up(table, index, settings, sid, now, &ended);
		if (!TransactionIdIsValid(writer))
			break;
		XactLockTableWait(writer, nullptr, nullptr, XLTW_None);
	}
	index_close(index, AccessShareLock);
	table_close(table, AccessShareLock);
	return ended;
}

void remove_tombstone(const StoreSettings *settings, Datum sid) {
	Datum values[] = {Int32GetDatum(settings->id), sid};
	run_as_extension(&remove_plan, kRemoveTombstone, 2, values);
}

void remove_tombstones(int32 store_id) {
	Datum values[] = {Int32GetDatum(store_id)};
	run_as_extension(&remove_all_plan, kRemoveTombstones, 1, values);
}

} // namespace session_store
