// RFC 7396: JSON merge patch, over jsonb.
#pragma once

#include "postgres/pg.h"

namespace session_store {

// `target` with `patch` applied: members of an object replace or join those of the target, null
// removes one, objects are merged within; a patch that is no object replaces the target. palloc'd.
Jsonb *merge_patch(Jsonb *target, Jsonb *patch);

} // namespace session_store
