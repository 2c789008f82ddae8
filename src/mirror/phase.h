// A change of a store's phase, on its way through set_phase.
#pragma once

#include "postgres/pg.h"
#include "store/registry.h"

namespace session_store {

struct PhaseChange {
	StoreSettings store; // as it is before
	Oid owner;           // of its table
	Phase to;
	int32 percent; // rollout_percent from now on
	bool force;
	int64 live;       // live sessions in PostgreSQL
	int64 redis_keys; // -1: not counted
	char redis_problem[256];
	bool caught_up; // what both sides had accepted was copied, when that was waited for
};

// Whether the change starts the mirror, and lets one side replace the other.
bool enters_dual(const PhaseChange *change);
bool leaves_dual(const PhaseChange *change);
// Whether any sid has another owner afterwards, both sides being kept equal until then.
bool moves_ownership(const PhaseChange *change);

// Asks Redis and the mirror what the checks need to know. Takes no lock: either may be slow.
void look_before_change(PhaseChange *change);
// ERROR, with the reason and the remedy, when the change must not be made.
void check_change(const PhaseChange *change);

} // namespace session_store
