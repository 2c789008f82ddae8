// The table that a mirror writes to, opened for one transaction.
#pragma once

#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

// Two quoted names of at most NAMEDATALEN - 1 bytes each, every byte perhaps a doubled quote.
inline constexpr int kQualifiedNameBytes = 4 * NAMEDATALEN + 8;

struct MirrorTarget {
	StoreSettings store;
	// As of the last open_target():
	Oid owner;
	bool is_partitioned;
	char name[kQualifiedNameBytes]; // with its schema, quoted
};

// Locks the table of the store until the end of the transaction and takes down what it is called
// and whose it is. ERROR undefined_table when it is gone.
void open_target(MirrorTarget *target, LOCKMODE lockmode);

} // namespace session_store
