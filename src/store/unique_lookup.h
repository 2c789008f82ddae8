// Looking a key up in a unique B-tree, without an index scan.
//
// An index scan copies every match of a page, prepares for going on and backward, and takes 54 kB
// of memory for that. One sid has one visible row: the leaf page is searched, the few places that
// its entries name are read, and that is all. Whatever is unusual is left to an index scan.
#pragma once

#include "postgres/pg.h"

extern "C" {
#include "access/nbtree.h"
}

namespace session_store {

enum class Lookup : uint8_t {
	found,     // the slot holds the row
	absent,    // the snapshot sees no such row
	undecided, // ask an index scan
};

// Plain data, in the memory context of its beginning.
struct UniqueLookup {
	Relation table;
	Relation index;
	BTScanInsert key; // null: every lookup is undecided
	IndexFetchTableData *fetch;
};

// For an open table and an open index on one text column. Undecided where the index does not
// compare bytes, under SERIALIZABLE, whose reads must leave predicate locks, and with a snapshot
// that is neither MVCC nor dirty. A dirty one may see several rows of one key: one of them is
// found.
UniqueLookup begin_lookup(Relation table, Relation index, Snapshot snapshot);
Lookup look_up(UniqueLookup *lookup, text *key, Snapshot snapshot, TupleTableSlot *slot);
void end_lookup(UniqueLookup *lookup);

} // namespace session_store
