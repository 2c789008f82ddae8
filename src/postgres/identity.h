// Acting as another user for a moment, the way PostgreSQL's own maintenance does.
#pragma once

#include "postgres/pg.h"

namespace session_store {

struct Identity {
	Oid user;
	int security_context;
	int guc_level;
};

// Takes on `user` for what it may do to its own tables: no SET ROLE, no deferred triggers, no
// temporary objects, no row-level security forced on the owner, search_path = pg_catalog, pg_temp.
// An error restores everything at the abort of the (sub)transaction. Ends with leave_identity.
Identity enter_owner(Oid user);
// Takes on the extension's owner for the extension's own tables; runs no user's code.
Identity enter_extension_owner();
void leave_identity(const Identity *saved);

} // namespace session_store
