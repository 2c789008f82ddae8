// Removing expired sessions.
#include "store/direct_delete.h"

#include "postgres/compat.h"
#include "store/direct_writes.h"
#include "store/repartition_notes.h"

extern "C" {
#include "utils/rls.h"
}

namespace session_store {

namespace {

constexpr int kKeys = 2;

bool may_delete(Relation table) {
	const Oid relation = RelationGetRelid(table);
	return pg_class_aclmask(relation, GetUserId(), ACL_SELECT | ACL_DELETE, ACLMASK_ALL) ==
		(ACL_SELECT | ACL_DELETE) &&
		check_enable_rls(relation, InvalidOid, true) != RLS_ENABLED;
}

// What an index scan goes over.
struct BucketScan {
	Relation index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanDirection oldest_first;
};

BucketScan begin_bucket_scan(
	Relation table, Oid bucket_index, const ExpiredRows *rows, Snapshot snapshot) {
	ScanKeyData keys[kKeys];
	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
		TimestampTzGetDatum(rows->from));
	ScanKeyInit(
		&keys[1], 1, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(rows->until));
	Relation index = index_open(bucket_index, AccessShareLock);
	IndexScanDesc scan = begin_index_scan(table, index, snapshot, kKeys);
	index_rescan(scan, keys, kKeys, nullptr, 0);
	const bool descends = (index->rd_indoption[0] & INDOPTION_DESC) != 0;
	return {index, scan, table_slot_create(table, nullptr),
		descends ? BackwardScanDirection : ForwardScanDirection};
}

void end_bucket_scan(BucketScan *scan) {
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
}

bool has_expired(TupleTableSlot *slot, const ExpiredRows *rows) {
	bool is_null;
	const Datum expire = slot_getattr(slot, rows->expire, &is_null);
	return !is_null && DatumGetTimestampTz(expire) <= rows->until;
}

// Nobody is waited for: what is locked, or was changed since the snapshot, stays.
bool delete_row(Relation table, TupleTableSlot *slot, Snapshot snapshot) {
	TM_FailureData failure;
	return table_tuple_delete(table, &slot->tts_tid, GetCurrentCommandId(true), snapshot,
			   InvalidSnapshot, false, &failure, false) == TM_Ok;
}

} // namespace

bool delete_expired_directly(Relation table, Oid bucket_index, int32 store_id, AttrNumber sid,
	const ExpiredRows *rows, DeletedRows *deleted) {
	*deleted = {};
	const DirectWrites allowed = direct_writes_to(table, DirectWrite::remove);
	if (allowed == DirectWrites::refused || !may_delete(table))
		return false;
	PreventCommandIfReadOnly("DELETE");
	CheckCmdReplicaIdentity(table, CMD_DELETE);
	const Snapshot snapshot = GetActiveSnapshot();
	BucketScan scan = begin_bucket_scan(table, bucket_index, rows, snapshot);
	while (deleted->count < rows->limit &&
		index_getnext_slot(scan.scan, scan.oldest_first, scan.slot)) {
		CHECK_FOR_INTERRUPTS();
		if (!has_expired(scan.slot, rows) || !delete_row(table, scan.slot, snapshot))
			continue;
		bool is_null;
		deleted->last_bucket = DatumGetTimestampTz(slot_getattr(scan.slot, rows->bucket, &is_null));
		deleted->count++;
		if (allowed == DirectWrites::noted)
			note_written(store_id, slot_getattr(scan.slot, sid, &is_null));
	}
	end_bucket_scan(&scan);
	CommandCounterIncrement();
	return true;
}

} // namespace session_store
