// Looking things up in the extension's own tables.
#include "mirror/extension_scan.h"

#include "postgres/compat.h"
#include "store/registry.h"

namespace session_store {

ExtensionScan open_extension_scan(const char *table, const char *index, int keys) {
	ExtensionScan scan = {};
	scan.table = table_open(extension_table(table), AccessShareLock);
	scan.index = index_open(extension_table(index), AccessShareLock);
	scan.snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan.slot = table_slot_create(scan.table, nullptr);
	scan.keys = keys;
	scan.scan = begin_index_scan(scan.table, scan.index, scan.snapshot, keys);
	return scan;
}

void look_up(ExtensionScan *scan, ScanKey keys) {
	index_rescan(scan->scan, keys, scan->keys, nullptr, 0);
}

bool next_row(ExtensionScan *scan) {
	return index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
}

Datum row_value(ExtensionScan *scan, int column, bool *is_null) {
	return slot_getattr(scan->slot, static_cast<AttrNumber>(column), is_null);
}

void close_extension_scan(ExtensionScan *scan) {
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	UnregisterSnapshot(scan->snapshot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->table, AccessShareLock);
}

} // namespace session_store
