// What a mirror says about itself: in shared memory for status, and once in the log.
#pragma once

#include "mirror/apply.h"
#include "postgres/pg.h"
#include "worker/shared_state.h"

namespace session_store {

// Sets the state and its words, without publishing.
void set_state(MirrorState state, const char *words);
// The same for what keeps the mirror from working. Logged unless the same was logged last.
void set_failure(const StoreSettings *store, MirrorState state, const char *message);
// Forgets what was logged, and logs that the trouble is over if there was one.
void note_recovery(const StoreSettings *store);

void count_work(const ApplyResult *result);
void count_connect();

// Sets the state of a mirror that is connected and works.
void describe_state();
// Publishes when something worth it changed, or `now`.
void publish(bool now);

} // namespace session_store
