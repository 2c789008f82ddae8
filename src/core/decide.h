// The one decision: what to do about a sid, from what both sides hold.
//
// Plain data in, plain data out, no clock and no I/O, so that the whole table is tested. Hints of
// Redis, changes of PostgreSQL and comparisons all ask this function. What it rests on: a base, the
// state on which both sides last agreed, tells who changed a sid. With nothing pending in the
// outbox PostgreSQL's row is the base; what is pending carries the bases that it replaced.
#pragma once

#include <cstdint>

namespace session_store::core {

// What one read of Redis said about the key.
enum class RedisState : std::uint8_t {
	absent,     // nil and "no such key" in the same transaction: it is gone
	value,      // a string that the store can hold
	other_type, // a hash, a list, ...
	rejected,   // a string, or a key, that the store cannot hold
	error,      // Redis did not say
};

// The row of the sid. One that is past its expiry, by either clock, counts as absent.
enum class PostgresState : std::uint8_t { absent, live };

// Who changed a field, where both sides hold the sid. With nothing pending a difference is Redis'.
enum class Changed : std::uint8_t { none, postgres, redis, both };

enum class Owner : std::uint8_t { redis, postgres };

enum class Continuity : std::uint8_t {
	kept,   // Redis is known to be the one we followed, with no flush and no swap in between
	broken, // it is not: what is absent may have been lost rather than ended, so the owner wins
	refill, // broken, and Redis gets back what it lost, whoever owns it
};

// What the outbox still holds for the sid.
enum class Pending : std::uint8_t {
	none,
	changed, // written
	ended,   // logged out, and not written since
	renewed, // logged out, and written since
};

// Whether the sid was ended less than logout_guard ago, and where.
enum class Tombstone : std::uint8_t { none, by_redis, by_postgres };

// Whether the key vanished by eviction, and on_eviction says to keep the row.
enum class Eviction : std::uint8_t { none, kept };

// Whether deletes wait for an answer because there would be too many (max_delete_percent).
enum class Deletes : std::uint8_t { allowed, held };

struct Situation {
	RedisState redis = RedisState::error;
	PostgresState postgres = PostgresState::absent;
	Changed payload = Changed::none; // of a value and a live row
	Changed expiry = Changed::none;  // likewise
	Pending pending = Pending::none;
	bool redis_is_base = false; // what Redis holds, or its absence, is a base that is pending
	Owner owner = Owner::redis;
	Continuity continuity = Continuity::kept;
	Tombstone tombstone = Tombstone::none;
	Eviction eviction = Eviction::none;
	Deletes postgres_deletes = Deletes::allowed;
	Deletes redis_deletes = Deletes::allowed;
};

enum class Action : std::uint8_t {
	nothing,         // both sides agree: what is pending is settled
	write,           // payload and expiry say what goes where
	delete_postgres, // remove the row; `ended` says whether it is a logout
	delete_redis,
	reject, // keep bytes and reason in rejects; no live row stays
	hold,   // a delete that waits for an answer
	retry,  // look again later
};

enum class Direction : std::uint8_t { none, to_postgres, to_redis };

struct Decision {
	Action action = Action::retry;
	Direction payload = Direction::none;
	Direction expiry = Direction::none;
	bool ended = false; // delete_postgres: Redis ended the session, so that late writes are refused

	friend constexpr bool operator==(const Decision &, const Decision &) = default;
};

Decision decide(const Situation &situation) noexcept;

const char *action_name(Action action) noexcept;

} // namespace session_store::core
