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

bool scan_for_row(Probe *probe, text *sid) {
	if (probe->scan == nullptr)
		probe->scan = begin_index_scan(probe->table, probe->index, probe->snapshot, 1);
	ScanKeyData key;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(sid));
	index_rescan(probe->scan, &key, 1, nullptr, 0);
	return index_getnext_slot(probe->scan, ForwardScanDirection, probe->slot);
}

// Puts the row of `sid` that the snapshot sees into the probe's slot.
bool fetch_row(Probe *probe, text *sid) {
	Lookup result = look_up(&probe->lookup, sid, probe->snapshot, probe->slot);
	return result == Lookup::undecided ? scan_for_row(probe, sid) : result == Lookup::found;
}

} // namespace

Probe begin_probe(const Store *store, Relation table, Snapshot snapshot) {
	Probe probe = {};
	probe.store = store;
	probe.table = table;
	probe.index = index_open(store->sid_index, AccessShareLock);
	probe.snapshot = snapshot;
	probe.slot = table_slot_create(table, nullptr);
	probe.lookup = begin_lookup(table, probe.index, snapshot);
	return probe;
}

Found find(Probe *probe, text *sid, TimestampTz now, bool want_payload) {
	Found found = {};
	if (!fetch_row(probe, sid))
		return found;
	const StoreColumns *columns = &probe->store->columns;
	found.present = true;
	found.expire = column_value(probe->slot, columns->expire);
	found.live = found.expire > now;
	found.version = column_value(probe->slot, columns->version);
	if (found.live && want_payload) {
		bool is_null;
		Datum sess = slot_getattr(probe->slot, columns->sess, &is_null);
		found.sess = PointerGetDatum(PG_DETOAST_DATUM_COPY(sess));
	}
	return found;
}

void end_probe(Probe *probe) {
	if (probe->scan != nullptr)
		index_endscan(probe->scan);
	end_lookup(&probe->lookup);
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, AccessShareLock);
}

Found probe_once(
	const Store *store, Relation table, text *sid, TimestampTz now, bool want_payload) {
	Probe probe = begin_probe(store, table, GetActiveSnapshot());
	Found found = find(&probe, sid, now, want_payload);
	end_probe(&probe);
	return found;
}

bool is_live_now(const Store *store, Relation table, text *sid, TimestampTz now) {
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Probe probe = begin_probe(store, table, snapshot);
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

Relation open_for_probe(Store *store) {
	Relation table = open_store_table(store, AccessShareLock);
	if (may_probe(store, table))
		return table;
	if (under_row_security(table))
		ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				errmsg("row-level security applies to table \"%s\" of store \"%s\"",
					RelationGetRelationName(table), NameStr(store->name)),
				errhint("The session functions do not work under row-level security: call them as "
						"the owner of the table, or disable it.")));
	aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, RelationGetRelationName(table));
	return nullptr;
}

} // namespace session_store
