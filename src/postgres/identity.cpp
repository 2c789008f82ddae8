// Acting as another user for a moment.
#include "postgres/identity.h"

#include "store/registry.h"

namespace session_store {

namespace {

Identity enter(Oid user, int flags) {
	Identity saved;
	GetUserIdAndSecContext(&saved.user, &saved.security_context);
	SetUserIdAndSecContext(user, saved.security_context | flags);
	saved.guc_level = NewGUCNestLevel();
	(void)set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
		GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

} // namespace

Identity enter_owner(Oid user) {
	return enter(
		user, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
}

Identity enter_extension_owner() {
	return enter(extension_owner(), SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
}

void leave_identity(const Identity *saved) {
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->security_context);
}

} // namespace session_store
