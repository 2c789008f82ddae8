// A backend's link to Redis: what check_redis, verify and set_phase look at. Like feed_link.h,
// plain data and noexcept functions; one connection per process, at most, behind a static pointer.
//
// Every function that returns bool gives false on failure, with `error` filled.
#pragma once

#include "mirror/feed_link.h"

namespace session_store {

struct ProbeFinding {
	const char *item;
	bool ok;
	const char *detail;
};

// Looks at all that could go wrong. The findings last until the next call or probe_close().
bool probe_check(const FeedOptions *options, bool keeps_evicted, redis::Waiter *waiter,
	FeedError *error) noexcept;
int probe_findings(const ProbeFinding **findings) noexcept;

// Connects; replaces a connection that is there.
bool probe_open(const FeedOptions *options, redis::Waiter *waiter, FeedError *error) noexcept;
// Drops the connection and all memory.
void probe_close() noexcept;

// Redis' clock minus ours in microseconds; 0 when Redis does not tell.
bool probe_clock(std::int64_t *difference, FeedError *error) noexcept;
// Keys under the prefix, by a SCAN of all of them.
bool probe_count(std::int64_t *keys, FeedError *error) noexcept;

// Reading keys; see redis::KeyReader. After one of the first three, probe_next() until !*more.
bool probe_start_scan(FeedError *error) noexcept;
bool probe_start_sample(std::size_t count, FeedError *error) noexcept;
bool probe_add(std::string_view sid, FeedError *error) noexcept;
// Items are valid until the next call.
bool probe_next(const FeedItem **items, int *count, bool *more, FeedError *error) noexcept;

} // namespace session_store
