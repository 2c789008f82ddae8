// session_store.repartitions: how far a repartition has come; and the sids noted meanwhile. All of
// it needs an SPI connection and reads and writes as the extension's owner.
#pragma once

#include "store/registry.h"

namespace session_store {

enum class RepartitionPhase : uint8_t { made, copying, swapped };

struct RepartitionState {
	int32 store_id;
	Oid source;
	Oid target;
	RepartitionPhase phase;
	Datum copied_to; // sids up to this one are copied; "" for none
	bool copied_all;
	int64 copied;
	int64 total; // an estimate
};

enum class StateLock : uint8_t { none, locked, busy };

// Reads the row of this store and locks it until the end of the transaction. `only_if_left`: none
// when somebody took a step within the last seconds.
StateLock lock_repartition(const Store *store, bool only_if_left, RepartitionState *state);
// Notes that a repartition has begun: `interval` is null for a plain table.
void note_repartition(const Store *store, Oid target, Interval *interval, int64 sessions);
// Whether one is under way, and whether it is to that interval.
bool repartition_is_under_way(const Store *store, Interval *interval, bool *same);

void set_repartition_phase(RepartitionState *state, RepartitionPhase phase);
// `count` more are copied, up to `copied_to`. An empty copied_to begins anew.
void note_copied(RepartitionState *state, int64 count, Datum copied_to, bool all);

// Takes at most `limit` notes: their sids as an array. Returns how many notes there were.
int64 take_noted_sids(RepartitionState *state, int64 limit, Datum *sids, bool *truncated);
// How many notes wait, counted up to `limit`.
int64 count_noted(const RepartitionState *state, int64 limit);

// Makes the target the store's table in the registry, with the interval that was asked for.
void put_in_place(RepartitionState *state);
void forget_repartition(const RepartitionState *state);

} // namespace session_store
