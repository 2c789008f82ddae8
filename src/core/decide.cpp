// The decision table.

#include "core/decide.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

constexpr Decision only(Action action) noexcept {
	return {action, Direction::none, Direction::none, false};
}

constexpr Decision write_both(Direction direction) noexcept {
	return {Action::write, direction, direction, false};
}

constexpr Decision write_fields(Direction payload, Direction expiry) noexcept {
	if (payload == Direction::none && expiry == Direction::none)
		return only(Action::nothing);
	return {Action::write, payload, expiry, false};
}

// Whether PostgreSQL's state replaces what Redis holds, absence included.
bool postgres_replaces(const Situation &situation) noexcept {
	return situation.continuity != Continuity::kept && situation.owner == Owner::postgres;
}

// Where a field goes that differs, or was changed, as said.
Direction direction_of(Changed changed, const Situation &situation) noexcept {
	switch (changed) {
	case Changed::none:
		return Direction::none;
	case Changed::postgres:
		return Direction::to_redis;
	case Changed::redis:
		return postgres_replaces(situation) ? Direction::to_redis : Direction::to_postgres;
	case Changed::both:
		return situation.owner == Owner::postgres ? Direction::to_redis : Direction::to_postgres;
	}
	return Direction::none;
}

// PostgreSQL ended the session: that beats whatever Redis held before, whoever owns it.
Decision after_logout(const Situation &situation) noexcept {
	const bool live =
		situation.pending == Pending::renewed && situation.postgres == PostgresState::live;
	switch (situation.redis) {
	case RedisState::absent:
		return live ? write_both(Direction::to_redis) : only(Action::nothing);
	case RedisState::value:
		if (!live)
			return only(Action::delete_redis);
		return write_fields(
			situation.payload == Changed::none ? Direction::none : Direction::to_redis,
			situation.expiry == Changed::none ? Direction::none : Direction::to_redis);
	case RedisState::rejected:
		return live ? write_both(Direction::to_redis) : only(Action::delete_redis);
	case RedisState::other_type:
		return only(Action::reject);
	case RedisState::error:
		break;
	}
	return only(Action::retry);
}

Decision when_rejected(const Situation &situation) noexcept {
	const bool postgres_wins = situation.postgres == PostgresState::live &&
		situation.owner == Owner::postgres &&
		(situation.pending == Pending::changed || situation.continuity != Continuity::kept);
	return postgres_wins ? write_both(Direction::to_redis) : only(Action::reject);
}

Decision when_absent(const Situation &situation) noexcept {
	if (situation.postgres == PostgresState::absent)
		return only(Action::nothing);
	const bool is_pending = situation.pending == Pending::changed;
	if (situation.eviction == Eviction::kept)
		return is_pending ? write_both(Direction::to_redis) : only(Action::nothing);
	if (situation.continuity == Continuity::refill || postgres_replaces(situation) ||
		(is_pending && situation.redis_is_base))
		return write_both(Direction::to_redis);
	if (situation.postgres_deletes == Deletes::held)
		return only(Action::hold);
	return {Action::delete_postgres, Direction::none, Direction::none,
		situation.continuity == Continuity::kept};
}

// Redis holds a value and PostgreSQL no live row.
Decision when_only_redis(const Situation &situation) noexcept {
	// The row was changed here, and has expired or was removed as expired since. Unless Redis has
	// renewed it, it has ended there too.
	if (situation.pending == Pending::changed)
		return situation.redis_is_base ? only(Action::delete_redis)
									   : write_both(Direction::to_postgres);
	const bool guarded = situation.tombstone == Tombstone::by_postgres ||
		(situation.tombstone == Tombstone::by_redis && situation.owner == Owner::postgres);
	if (guarded)
		return only(Action::delete_redis);
	if (postgres_replaces(situation))
		return only(situation.redis_deletes == Deletes::held ? Action::hold : Action::delete_redis);
	return write_both(Direction::to_postgres);
}

} // namespace

Decision decide(const Situation &situation) noexcept {
	if (situation.redis == RedisState::error)
		return only(Action::retry);
	if (situation.pending == Pending::ended || situation.pending == Pending::renewed)
		return after_logout(situation);
	switch (situation.redis) {
	case RedisState::absent:
		return when_absent(situation);
	case RedisState::value:
		if (situation.postgres == PostgresState::absent)
			return when_only_redis(situation);
		return write_fields(
			direction_of(situation.payload, situation), direction_of(situation.expiry, situation));
	case RedisState::rejected:
		return when_rejected(situation);
	case RedisState::other_type:
		return only(Action::reject);
	case RedisState::error:
		break;
	}
	return only(Action::retry);
}

const char *action_name(Action action) noexcept {
	switch (action) {
	case Action::nothing:
		return "nothing";
	case Action::write:
		return "write";
	case Action::delete_postgres:
		return "delete postgres";
	case Action::delete_redis:
		return "delete redis";
	case Action::reject:
		return "reject";
	case Action::hold:
		return "hold";
	case Action::retry:
		return "retry";
	}
	return "unknown";
}

} // namespace session_store::core
