// The one decision: what to do about a sid, from what both sides hold.
//
// Plain data in, plain data out, no clock and no I/O, so that the whole table is tested. Pull,
// push, comparison and verification all ask this function; so far only what pulling needs is
// decided, and every other combination answers with the action that changes nothing.
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

// The live row, compared with what Redis holds. An expired row counts as absent.
enum class PostgresState : std::uint8_t {
	absent,
	equal,
	differs_expiry,
	differs_payload,
	differs_both,
};

enum class Owner : std::uint8_t { redis, postgres };

// Whether Redis is known to be the one we followed, with no flush and no swap in between.
enum class Continuity : std::uint8_t { kept, broken };

// What the outbox still holds for the sid.
enum class Pending : std::uint8_t { none, changed, ended };

// Whether PostgreSQL ended the sid less than logout_guard ago.
enum class Tombstone : std::uint8_t { none, guarding };

// Whether the key vanished by eviction, and on_eviction says to keep the row.
enum class Eviction : std::uint8_t { none, kept };

// Whether deletes wait for an answer because there would be too many (max_delete_percent).
enum class Deletes : std::uint8_t { allowed, held };

struct Situation {
	RedisState redis = RedisState::error;
	PostgresState postgres = PostgresState::absent;
	Owner owner = Owner::redis;
	Continuity continuity = Continuity::kept;
	Pending pending = Pending::none;
	Tombstone tombstone = Tombstone::none;
	Eviction eviction = Eviction::none;
	Deletes deletes = Deletes::allowed;
};

enum class Action : std::uint8_t {
	nothing,
	write_postgres,  // payload and expiry say which of the two
	delete_postgres, // remove the row; not a logout made here, so no tombstone
	reject,          // keep bytes and reason in rejects; no live row stays
	retry,           // look again later
	write_redis,     // not decided yet: the way back
	delete_redis,    // not decided yet: the way back
};

struct Decision {
	Action action = Action::retry;
	bool payload = false; // the payload is to be written
	bool expiry = false;  // the expiry is to be written

	friend constexpr bool operator==(const Decision &, const Decision &) = default;
};

Decision decide(const Situation &situation) noexcept;

const char *action_name(Action action) noexcept;

} // namespace session_store::core
