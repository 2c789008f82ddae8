// How a store's mirror fares, in words for a person.
#pragma once

#include "store/registry.h"
#include "worker/shared_state.h"

namespace session_store {

// What keeps the mirror of a store from running here, whatever Redis says, and what to do about it:
// clauses without capital or full stop.
struct MirrorObstacle {
	const char *state;
	const char *reason;
	const char *remedy;
};
// False when nothing does. Strings are constant or palloc'd.
bool find_mirror_obstacle(const StoreSettings *store, MirrorObstacle *obstacle);

// The state of the mirror of a store of this database, with the remedy where there is one. `report`
// is that of its mirror, null when there is none. The result lasts as long as `report`, or is
// palloc'd.
const char *mirror_in_words(const StoreSettings *store, const MirrorReport *report);

// One word for a state, for statistics.
const char *mirror_state_name(MirrorState state);

} // namespace session_store
