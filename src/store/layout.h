// What a store's table looks like: its columns, the index that finds a sid, and its partitions.
#pragma once

#include "store/registry.h"

namespace session_store {

// Describes the open table of `store` as it is now. ERROR when it lacks what a store needs.
void describe_table(Store *store, Relation table);

// Whether that is a partition of the table, or the index by which its sids are found.
bool has_partition(const Store *store, Oid relation);
// The partition of that relation, or null.
StorePartition *find_partition(const Store *store, Oid relation);
// The catch-all, or null when somebody took it away.
StorePartition *catch_all_of(const Store *store);

// Whether a session that expires then belongs into this partition.
inline bool holds(const StorePartition *partition, TimestampTz expire) {
	return !partition->is_catch_all && expire >= partition->from && expire < partition->to;
}
// The partition that such a session belongs into, or null.
StorePartition *partition_for(const Store *store, TimestampTz expire);

} // namespace session_store
