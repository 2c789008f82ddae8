// Finding a session by its index, without a plan: what get and touch do on every request.
#pragma once

#include "store/registry.h"
#include "store/unique_lookup.h"

namespace session_store {

// A session as one snapshot sees it.
struct Found {
	bool present; // there is a row, live or not: the probe stands on it
	bool live;
	TimestampTz expire;
	int64 version;
	Datum sess; // detoasted and palloc'd; only when asked for
};

// One table that may hold the session: the store's, or a partition of it.
struct TableProbe {
	Relation table; // null until it is first looked at
	Relation index;
	StoreColumns columns;
	TupleTableSlot *slot;
	UniqueLookup lookup;
	IndexScanDesc scan; // null until the lookup leaves a sid to it
};

// Which sessions a probe is about. Partitions whose sessions have all expired hold no live one.
enum class Wanted : uint8_t { any, live };

// Looks up one sid after another, in the partitions of a partitioned table newest first. Plain
// data.
struct Probe {
	Store *store;
	Relation table;
	Snapshot snapshot;
	Wanted wanted;
	TimestampTz likely_expire; // the partition with it is looked at first; 0: none in particular
	TableProbe whole;          // of a table without partitions
	TableProbe *partitions;    // in the order of the store's, else null
	int partition_count;
	int at; // the partition that the row found last is in
};

Probe begin_probe(Store *store, Relation table, Snapshot snapshot, Wanted wanted);
Found find(Probe *probe, text *sid, TimestampTz now, bool want_payload);
void end_probe(Probe *probe);

// Where the row found last is: its table and slot.
inline TableProbe *table_of(Probe *probe) {
	return probe->partitions == nullptr ? &probe->whole : &probe->partitions[probe->at];
}

// Looks up a live `sid` in the open table of `store` as the active snapshot sees it.
Found probe_once(Store *store, Relation table, text *sid, TimestampTz now, bool want_payload);
// Whether `sid` is live now, whatever the isolation level's snapshot shows.
bool is_live_now(Store *store, Relation table, text *sid, TimestampTz now);

// Whether the caller may read the table by index: SELECT is granted, no row-level security applies.
bool may_probe(Store *store, Relation table);
// ERROR when row-level security applies to the caller.
void refuse_row_security(Store *store, Relation table);
// Opens the store's table for reading by index. ERROR when the caller may not SELECT from it, or
// when row-level security applies, which an index probe cannot respect.
Relation open_for_probe(Store *store);

} // namespace session_store
