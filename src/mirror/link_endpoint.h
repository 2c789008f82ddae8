// The options of a link as redis::Endpoint. For the C++ side of links.
#pragma once

#include "mirror/feed_link.h"
#include "redis/endpoint.h"

#include "core/cpp_only.h"

namespace session_store {

redis::Endpoint endpoint_of(const FeedOptions &options);

} // namespace session_store
