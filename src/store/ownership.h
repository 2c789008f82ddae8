// Which side owns a sid of a store: the one the application reads, and that wins a conflict.
#pragma once

#include <string_view>

#include "core/rollout.h"
#include "store/registry.h"

namespace session_store {

inline bool postgres_owns(const StoreSettings *store, std::string_view sid) {
	if (store->phase == Phase::dual_redis_primary)
		return core::postgres_owns(sid, store->rollout_percent);
	return store->phase != Phase::redis_only;
}

} // namespace session_store
