// Writing to Redis and waiting for it.
#pragma once

#include "redis/feed.h"

namespace session_store::test {

inline void push(redis::Feed &feed, std::span<const redis::Push> pushes,
	std::span<redis::PushResult> results, std::string *refusal) {
	feed.start_push(pushes);
	feed.finish_pushes(results, refusal);
}

} // namespace session_store::test
