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

// Looks up one sid after another. Plain data.
struct Probe {
	const Store *store;
	Relation table;
	Relation index;
	Snapshot snapshot;
	TupleTableSlot *slot;
	UniqueLookup lookup;
	IndexScanDesc scan; // null until the lookup leaves a sid to it
};

Probe begin_probe(const Store *store, Relation table, Snapshot snapshot);
Found find(Probe *probe, text *sid, TimestampTz now, bool want_payload);
void end_probe(Probe *probe);

// Looks up `sid` in the open table of `store` as the active snapshot sees it.
Found probe_once(const Store *store, Relation table, text *sid, TimestampTz now, bool want_payload);
// Whether `sid` is live now, whatever the isolation level's snapshot shows.
bool is_live_now(const Store *store, Relation table, text *sid, TimestampTz now);

// Whether the caller may read the table by index: SELECT is granted, no row-level security applies.
bool may_probe(Store *store, Relation table);
// Opens the store's table for reading by index. ERROR when the caller may not SELECT from it, or
// when row-level security applies, which an index probe cannot respect.
Relation open_for_probe(Store *store);

} // namespace session_store
