// Finding a session by its index.
#include "store/probe.h"

#include "postgres/compat.h"

extern "C" {
#include "catalog/pg_collation.h"
#include "utils/rls.h"
}

namespace session_store {

namespace {

int64 column_value(TupleTableSlot *slot, AttrNumber column) {
	bool is_null;
	Datum value = slot_getattr(slot, column, &is_null);
	return is_null ? 0 : DatumGetInt64(value);
}

bool under_row_security(Relation table) {
	return table->rd_rel->relrowsecurity &&
		check_enable_rls(RelationGetRelid(table), InvalidOid, true) == RLS_ENABLED;
}

TableProbe open_table_probe(
	Relation table, Oid sid_index, const StoreColumns *columns, Snapshot snapshot) {
	TableProbe probe = {};
	probe.table = table;
	probe.index = index_open(sid_index, AccessShareLock);
	probe.columns = *columns;
	probe.slot = table_slot_create(table, nullptr);
	probe.lookup = begin_lookup(table, probe.index, snapshot);
	return probe;
}

void close_table_probe(TableProbe *probe) {
	if (probe->scan != nullptr)
		index_endscan(probe->scan);
	end_lookup(&probe->lookup);
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, AccessShareLock);
}

bool scan_for_row(TableProbe *probe, text *sid, Snapshot snapshot) {
	if (probe->scan == nullptr)
		probe->scan = begin_index_scan(probe->table, probe->index, snapshot, 1);
	ScanKeyData key;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(sid));
	index_rescan(probe->scan, &key, 1, nullptr, 0);
	return index_getnext_slot(probe->scan, ForwardScanDirection, probe->slot);
}

// Puts the row of `sid` that the snapshot sees into the slot.
bool fetch_row(TableProbe *probe, text *sid, Snapshot snapshot) {
	Lookup result = look_up(&probe->lookup, sid, snapshot, probe->slot);
	return result == Lookup::undecided ? scan_for_row(probe, sid, snapshot)
									   : result == Lookup::found;
}

void open_partitions(Probe *probe) {
	probe->partition_count = probe->store->partition_count;
	probe->partitions =
		static_cast<TableProbe *>(palloc0(Max(probe->partition_count, 1) * sizeof(TableProbe)));
}

void close_partitions(Probe *probe) {
	for (int i = 0; i < probe->partition_count; i++) {
		TableProbe *partition = &probe->partitions[i];
		if (partition->table == nullptr)
			continue;
		close_table_probe(partition);
		table_close(partition->table, NoLock);
	}
	pfree(probe->partitions);
}

// Of the partition with that number, opened if need be; null where it cannot hold what is wanted.
TableProbe *open_partition(Probe *probe, int number, TimestampTz now) {
	const StorePartition *partition = &probe->store->partitions[number];
	if (probe->wanted == Wanted::live && !partition->is_catch_all && partition->to <= now)
		return nullptr;
	TableProbe *opened = &probe->partitions[number];
	if (opened->table == nullptr)
		*opened = open_table_probe(table_open(partition->relation, AccessShareLock),
			partition->sid_index, &partition->columns, probe->snapshot);
	return opened;
}

// The partition of that number when the row is in it, else null.
TableProbe *look_in(Probe *probe, int number, text *sid, TimestampTz now) {
	if (!probe->store->table_known)
		return nullptr;
	TableProbe *partition = open_partition(probe, number, now);
	if (partition == nullptr || !fetch_row(partition, sid, probe->snapshot))
		return nullptr;
	probe->at = number;
	return partition;
}

// The number of the partition with that expiry, -1 when there is none but the catch-all.
int partition_with(const Store *store, TimestampTz expire) {
	for (int i = 0; i < store->partition_count; i++) {
		const StorePartition *partition = &store->partitions[i];
		if (!partition->is_catch_all && partition->from <= expire && expire < partition->to)
			return i;
	}
	return -1;
}

TableProbe *find_in_partitions(Probe *probe, text *sid, TimestampTz now) {
	for (;;) {
		const int likely =
			probe->likely_expire == 0 ? -1 : partition_with(probe->store, probe->likely_expire);
		TableProbe *found = likely < 0 ? nullptr : look_in(probe, likely, sid, now);
		for (int i = 0; found == nullptr && i < probe->partition_count; i++)
			if (i != likely)
				found = look_in(probe, i, sid, now);
		if (found != nullptr)
			return found;
		if (probe->store->table_known)
			return nullptr;
		// A partition was made meanwhile, out of the catch-all that we looked at last.
		close_partitions(probe);
		table_close(open_store_table(probe->store, AccessShareLock), NoLock);
		open_partitions(probe);
	}
}

} // namespace

Probe begin_probe(Store *store, Relation table, Snapshot snapshot, Wanted wanted) {
	Probe probe = {};
	probe.store = store;
	probe.table = table;
	probe.snapshot = snapshot;
	probe.wanted = wanted;
	if (store->is_partitioned)
		open_partitions(&probe);
	else
		probe.whole = open_table_probe(table, store->sid_index, &store->columns, snapshot);
	return probe;
}

Found find(Probe *probe, text *sid, TimestampTz now, bool want_payload) {
	Found found = {};
	TableProbe *at = probe->partitions != nullptr        ? find_in_partitions(probe, sid, now)
		: fetch_row(&probe->whole, sid, probe->snapshot) ? &probe->whole
														 : nullptr;
	if (at == nullptr)
		return found;
	found.present = true;
	found.expire = column_value(at->slot, at->columns.expire);
	found.live = found.expire > now;
	found.version = column_value(at->slot, at->columns.version);
	if (found.live && want_payload) {
		bool is_null;
		Datum sess = slot_getattr(at->slot, at->columns.sess, &is_null);
		found.sess = PointerGetDatum(PG_DETOAST_DATUM_COPY(sess));
	}
	return found;
}

void end_probe(Probe *probe) {
	if (probe->partitions != nullptr)
		close_partitions(probe);
	else
		close_table_probe(&probe->whole);
}

Found probe_once(Store *store, Relation table, text *sid, TimestampTz now, bool want_payload) {
	Probe probe = begin_probe(store, table, GetActiveSnapshot(), Wanted::live);
	Found found = find(&probe, sid, now, want_payload);
	end_probe(&probe);
	return found;
}

bool is_live_now(Store *store, Relation table, text *sid, TimestampTz now) {
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Probe probe = begin_probe(store, table, snapshot, Wanted::live);
	Found found = find(&probe, sid, now, false);
	end_probe(&probe);
	UnregisterSnapshot(snapshot);
	return found.live;
}

bool may_probe(Store *store, Relation table) {
	if (store->may_select == GetUserId())
		return true;
	if (pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		under_row_security(table))
		return false;
	store->may_select = GetUserId();
	return true;
}

void refuse_row_security(Store *store, Relation table) {
	if (under_row_security(table))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("row-level security applies to table \"%s\" of store \"%s\"",
					RelationGetRelationName(table), NameStr(store->name)),
				errhint("The session functions do not work under row-level security: call them as "
						"the owner of the table, or disable it.")));
}

Relation open_for_probe(Store *store) {
	Relation table = open_store_table(store, AccessShareLock);
	if (may_probe(store, table))
		return table;
	refuse_row_security(store, table);
	aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(table));
	return nullptr;
}

} // namespace session_store
