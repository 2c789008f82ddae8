// What core::decide is asked about one sid.
#pragma once

#include "core/decide.h"
#include "mirror/rows.h"
#include "postgres/pg.h"

namespace session_store {

// How Redis stands to the Redis that the mirror followed, and which deletes wait. While a full
// comparison answers a gap, what is absent may have been lost; what the comparison has seen since
// and is absent now has ended.
struct MirrorStance {
	core::Continuity continuity;
	core::Deletes postgres_deletes;
	core::Deletes redis_deletes;
	int64 clock_difference; // microseconds: Redis' clock minus ours
};

// Who owns the sid.
core::Owner owner_of(const StoreSettings *store, std::string_view sid);

// Decides about a row from what it holds by now. Raises what convert_payload raises.
void decide_row(const StoreSettings *store, const MirrorStance *stance, Look look, MirrorRow *row,
	TimestampTz now);

} // namespace session_store
