// One sid, one row, in a partitioned table.
//
// Locks are of a class of our own among the advisory ones, where users have two: no key of theirs
// meets ours. A sid is locked by its hash, within one of 1024 stripes that is locked as shared.
// Past some sids a transaction locks whole stripes instead, so that any number of them fits into
// the table of locks; until then two sids do not wait for each other.
//
// A row is looked for as a unique index does, by a snapshot that shows uncommitted rows. That looks
// at one partition after another, while an UPDATE moves a row from one not yet looked at to one
// that was. So another snapshot is taken before: who moves a row after that leaves it visible
// there.
#include "store/one_row.h"

#include "postgres/compat.h"
#include "store/layout.h"
#include "store/unique_lookup.h"

extern "C" {
#include "common/hashfn.h"
#include "storage/lock.h"
}

namespace session_store {

namespace {

// Users' advisory locks have 1 or 2 here.
constexpr uint16 kSidLocks = 0x5353;
constexpr uint16 kStripeLocks = 0x5354;
constexpr uint32 kStripes = 1024;
// A transaction that locks more sids than this locks stripes.
constexpr int kMostSidLocks = 256;

int sid_locks = 0; // of this transaction
bool callback_registered = false;

void forget_locks(XactEvent event, void *) {
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		sid_locks = 0;
}

bool acquire(const Store *store, uint16 kind, uint32 key, LOCKMODE mode, bool waits) {
	LOCKTAG tag;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, static_cast<uint32>(store->settings.id), key, kind);
	return LockAcquire(&tag, mode, false, !waits) != LOCKACQUIRE_NOT_AVAIL;
}

bool lock(const Store *store, Datum sid, bool waits) {
	if (!callback_registered) {
		RegisterXactCallback(forget_locks, nullptr);
		callback_registered = true;
	}
	text *bytes = DatumGetTextPP(sid);
	uint32 hash = hash_bytes(reinterpret_cast<unsigned char *>(VARDATA_ANY(bytes)),
		static_cast<int>(VARSIZE_ANY_EXHDR(bytes)));
	if (sid_locks >= kMostSidLocks)
		return acquire(store, kStripeLocks, hash % kStripes, ExclusiveLock, waits);
	sid_locks++;
	return acquire(store, kStripeLocks, hash % kStripes, ShareLock, waits) &&
		acquire(store, kSidLocks, hash, ExclusiveLock, waits);
}

bool is_removed_by_us(TupleTableSlot *slot) {
	bool should_free;
	HeapTuple tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
	HeapTupleHeader header = tuple->t_data;
	return !HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) &&
		(header->t_infomask & HEAP_XMAX_INVALID) == 0 &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header));
}

enum class Presence : uint8_t { absent, present, in_progress };

Presence judge(TupleTableSlot *slot, Snapshot snapshot, TransactionId *writer) {
	if (snapshot->snapshot_type == SNAPSHOT_MVCC)
		return is_removed_by_us(slot) ? Presence::absent : Presence::present;
	*writer = TransactionIdIsValid(snapshot->xmin) ? snapshot->xmin : snapshot->xmax;
	return TransactionIdIsValid(*writer) ? Presence::in_progress : Presence::present;
}

Presence scan(Relation table, Relation index, Datum sid, Snapshot snapshot, TupleTableSlot *slot,
	TransactionId *writer) {
	IndexScanDesc scan = begin_index_scan(table, index, snapshot, 1);
	ScanKeyData key;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, sid);
	index_rescan(scan, &key, 1, nullptr, 0);
	Presence presence = Presence::absent;
	while (presence == Presence::absent && index_getnext_slot(scan, ForwardScanDirection, slot))
		presence = judge(slot, snapshot, writer);
	index_endscan(scan);
	return presence;
}

// What one snapshot shows of a sid in one partition. *writer: who is inserting or removing it.
Presence look(
	const StorePartition *partition, Datum sid, Snapshot snapshot, TransactionId *writer) {
	Relation table = table_open(partition->relation, AccessShareLock);
	Relation index = index_open(partition->sid_index, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(table, nullptr);
	UniqueLookup lookup = begin_lookup(table, index, snapshot);
	Presence presence = Presence::absent;
	switch (look_up(&lookup, DatumGetTextPP(sid), snapshot, slot)) {
	case Lookup::absent:
		break;
	case Lookup::found:
		presence = judge(slot, snapshot, writer);
		break;
	case Lookup::undecided:
		presence = scan(table, index, sid, snapshot, slot, writer);
		break;
	}
	end_lookup(&lookup);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(table, NoLock);
	return presence;
}

// Looks at the partitions, again from the start when one was made meanwhile.
Presence look_everywhere(Store *store, Datum sid, Snapshot snapshot, TransactionId *writer) {
	for (;;) {
		Relation table = open_store_table(store, AccessShareLock);
		Presence presence = Presence::absent;
		for (int i = 0; presence == Presence::absent && i < store->partition_count; i++)
			presence = look(&store->partitions[i], sid, snapshot, writer);
		table_close(table, NoLock);
		if (presence != Presence::absent || store->table_known)
			return presence;
	}
}

// Whether a transaction that wrote has ended since a snapshot with this count was taken.
bool somebody_ended(uint64 completions) {
	return GetLatestSnapshot()->snapXactCompletionCount != completions;
}

Presence look_once(Store *store, Datum sid, TransactionId *writer) {
	Snapshot latest = GetLatestSnapshot();
	const uint64 completions = latest->snapXactCompletionCount;
	Snapshot before = RegisterSnapshot(latest);
	SnapshotData dirty;
	InitDirtySnapshot(dirty);
	Presence presence = look_everywhere(store, sid, &dirty, writer);
	if (presence == Presence::absent && somebody_ended(completions) &&
		look_everywhere(store, sid, before, writer) == Presence::present) {
		// Moved or removed in the meantime.
		*writer = InvalidTransactionId;
		presence = Presence::in_progress;
	}
	UnregisterSnapshot(before);
	return presence;
}

} // namespace

void lock_sid(const Store *store, Datum sid) {
	(void)lock(store, sid, true);
}

bool try_lock_sid(const Store *store, Datum sid) {
	return lock(store, sid, false);
}

bool has_row(Store *store, Datum sid, bool waits) {
	for (;;) {
		TransactionId writer = InvalidTransactionId;
		Presence presence = look_once(store, sid, &writer);
		if (presence != Presence::in_progress || !waits)
			return presence != Presence::absent;
		if (TransactionIdIsValid(writer))
			XactLockTableWait(writer, nullptr, nullptr, XLTW_None);
		CHECK_FOR_INTERRUPTS();
	}
}

} // namespace session_store
