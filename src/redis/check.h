// What would go wrong between a mirror and this Redis, found out without changing anything in it.
#pragma once

#include <string>
#include <vector>

#include "redis/endpoint.h"
#include "redis/waiter.h"

#include "core/cpp_only.h"

namespace session_store::redis {

// One thing that was looked at. `ok` is false where something would go wrong; `detail` says what,
// and what to do about it, without a password or a key.
struct CheckItem {
	std::string item;
	bool ok = true;
	std::string detail;
};

struct CheckRequest {
	Endpoint endpoint;
	std::string prefix;
	bool keeps_evicted = true; // on_eviction = keep
};

// A Redis that cannot be reached is one item. Throws Error kind interrupted, and what else goes
// wrong after the connection was made.
std::vector<CheckItem> check(const CheckRequest &request, Waiter &waiter);

} // namespace session_store::redis
