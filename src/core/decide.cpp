// The decision table.

#include "core/decide.h"

#include "core/cpp_only.h"

namespace session_store::core {

namespace {

constexpr Decision kNothing{Action::nothing, false, false};
constexpr Decision kRetry{Action::retry, false, false};

// Redis owns the sid, holds a value, and PostgreSQL has nothing pending.
Decision pull_value(const Situation &situation) noexcept {
	// A logout made here still stands; deleting the key in Redis is the way back's business, so
	// the key stays dirty until the guard is over.
	if (situation.tombstone == Tombstone::guarding)
		return kRetry;
	switch (situation.postgres) {
	case PostgresState::equal:
		return kNothing;
	case PostgresState::differs_expiry:
		return {Action::write_postgres, false, true};
	case PostgresState::differs_payload:
		return {Action::write_postgres, true, false};
	case PostgresState::absent:
	case PostgresState::differs_both:
		return {Action::write_postgres, true, true};
	}
	return kRetry;
}

// Redis owns the sid and does not have it; PostgreSQL has nothing pending.
Decision pull_absence(const Situation &situation) noexcept {
	if (situation.postgres == PostgresState::absent)
		return kNothing;
	if (situation.eviction == Eviction::kept || situation.deletes == Deletes::held)
		return kNothing;
	return {Action::delete_postgres, false, false};
}

} // namespace

Decision decide(const Situation &situation) noexcept {
	if (situation.redis == RedisState::error)
		return kRetry;
	if (situation.owner == Owner::postgres)
		return kNothing;
	if (situation.pending != Pending::none)
		return kRetry;
	switch (situation.redis) {
	case RedisState::value:
		return pull_value(situation);
	case RedisState::absent:
		return pull_absence(situation);
	case RedisState::other_type:
	case RedisState::rejected:
		return {Action::reject, false, false};
	case RedisState::error:
		break;
	}
	return kRetry;
}

const char *action_name(Action action) noexcept {
	switch (action) {
	case Action::nothing:
		return "nothing";
	case Action::write_postgres:
		return "write postgres";
	case Action::delete_postgres:
		return "delete postgres";
	case Action::reject:
		return "reject";
	case Action::retry:
		return "retry";
	case Action::write_redis:
		return "write redis";
	case Action::delete_redis:
		return "delete redis";
	}
	return "unknown";
}

} // namespace session_store::core
