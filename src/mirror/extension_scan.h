// Looking things up in the extension's own tables by index, without a statement.
#pragma once

#include "postgres/pg.h"

namespace session_store {

// Sees what was committed when it was opened, and what this transaction wrote before. Plain data.
struct ExtensionScan {
	Relation table;
	Relation index;
	Snapshot snapshot;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	int keys;
};

inline constexpr int kMaxScanKeys = 3;

// `keys` is how many key columns each look-up gives.
ExtensionScan open_extension_scan(const char *table, const char *index, int keys);
void look_up(ExtensionScan *scan, ScanKey keys);
// The next row in the slot; false after the last.
bool next_row(ExtensionScan *scan);
Datum row_value(ExtensionScan *scan, int column, bool *is_null);
void close_extension_scan(ExtensionScan *scan);

} // namespace session_store
