// The decision: its plain tables cell by cell, and what must hold over all inputs.

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/decide.h"

namespace session_store::core {
namespace {

constexpr RedisState kRedis[] = {RedisState::absent, RedisState::value, RedisState::other_type,
	RedisState::rejected, RedisState::error};
constexpr Changed kChanged[] = {Changed::none, Changed::postgres, Changed::redis, Changed::both};
constexpr Continuity kContinuity[] = {Continuity::kept, Continuity::broken, Continuity::refill};
constexpr Pending kPending[] = {Pending::none, Pending::changed, Pending::ended, Pending::renewed};
constexpr Tombstone kTombstones[] = {Tombstone::none, Tombstone::by_redis, Tombstone::by_postgres};

constexpr Decision kNothing{Action::nothing, Direction::none, Direction::none, false};
constexpr Decision kReject{Action::reject, Direction::none, Direction::none, false};
constexpr Decision kRetry{Action::retry, Direction::none, Direction::none, false};
constexpr Decision kHold{Action::hold, Direction::none, Direction::none, false};
constexpr Decision kEnd{Action::delete_postgres, Direction::none, Direction::none, true};
constexpr Decision kLose{Action::delete_postgres, Direction::none, Direction::none, false};
constexpr Decision kDeleteRedis{Action::delete_redis, Direction::none, Direction::none, false};
constexpr Decision kPull{Action::write, Direction::to_postgres, Direction::to_postgres, false};
constexpr Decision kPush{Action::write, Direction::to_redis, Direction::to_redis, false};

void for_each_situation(const std::function<void(const Situation &)> &check) {
	Situation s;
	for (s.redis = RedisState::absent; const auto redis : kRedis)
		for (s.redis = redis; const auto postgres : {PostgresState::absent, PostgresState::live})
			for (s.postgres = postgres; const auto payload : kChanged)
				for (s.payload = payload; const auto expiry : kChanged)
					for (s.expiry = expiry; const auto pending : kPending)
						for (s.pending = pending; const bool is_base : {false, true})
							for (s.redis_is_base = is_base;
								 const auto owner : {Owner::redis, Owner::postgres})
								for (s.owner = owner; const auto continuity : kContinuity)
									for (s.continuity = continuity;
										 const auto tombstone : kTombstones)
										for (s.tombstone = tombstone;
											 const auto eviction : {Eviction::none, Eviction::kept})
											for (s.eviction = eviction; const auto held :
												 {Deletes::allowed, Deletes::held}) {
												s.postgres_deletes = s.redis_deletes = held;
												check(s);
											}
}

Situation both_hold(Changed payload, Changed expiry, Owner owner) {
	Situation s;
	s.redis = RedisState::value;
	s.postgres = PostgresState::live;
	s.payload = payload;
	s.expiry = expiry;
	s.owner = owner;
	return s;
}

Situation only_postgres(Owner owner, Continuity continuity) {
	Situation s;
	s.redis = RedisState::absent;
	s.postgres = PostgresState::live;
	s.owner = owner;
	s.continuity = continuity;
	return s;
}

Situation only_redis(Owner owner, Continuity continuity) {
	Situation s;
	s.redis = RedisState::value;
	s.owner = owner;
	s.continuity = continuity;
	return s;
}

TEST(Decide, EachFieldGoesWhereItWasNotChanged) {
	const auto one = [](Changed payload, Changed expiry, Owner owner) {
		return decide(both_hold(payload, expiry, owner));
	};
	for (const auto owner : {Owner::redis, Owner::postgres}) {
		EXPECT_EQ(one(Changed::none, Changed::none, owner), kNothing);
		EXPECT_EQ(one(Changed::redis, Changed::redis, owner), kPull);
		EXPECT_EQ(one(Changed::postgres, Changed::postgres, owner), kPush);
		EXPECT_EQ(one(Changed::none, Changed::redis, owner),
			(Decision{Action::write, Direction::none, Direction::to_postgres, false}));
		// A touch here never discards a payload written there.
		EXPECT_EQ(one(Changed::redis, Changed::postgres, owner),
			(Decision{Action::write, Direction::to_postgres, Direction::to_redis, false}));
	}
	EXPECT_EQ(one(Changed::both, Changed::both, Owner::redis), kPull);
	EXPECT_EQ(one(Changed::both, Changed::both, Owner::postgres), kPush);
}

TEST(Decide, AbsenceIsAnEndWhileContinuityIsKept) {
	for (const auto owner : {Owner::redis, Owner::postgres}) {
		EXPECT_EQ(decide(only_postgres(owner, Continuity::kept)), kEnd);
		EXPECT_EQ(decide(only_redis(owner, Continuity::kept)), kPull);
	}
}

TEST(Decide, TheOwnerWinsAbsenceIncludedWhenContinuityIsBroken) {
	EXPECT_EQ(decide(only_postgres(Owner::redis, Continuity::broken)), kLose);
	EXPECT_EQ(decide(only_postgres(Owner::postgres, Continuity::broken)), kPush);
	EXPECT_EQ(decide(only_redis(Owner::redis, Continuity::broken)), kPull);
	EXPECT_EQ(decide(only_redis(Owner::postgres, Continuity::broken)), kDeleteRedis);
	EXPECT_EQ(decide(only_postgres(Owner::redis, Continuity::refill)), kPush);
	auto stale = both_hold(Changed::redis, Changed::redis, Owner::postgres);
	stale.continuity = Continuity::broken;
	EXPECT_EQ(decide(stale), kPush);
}

TEST(Decide, DeletesWaitWhileTheyAreHeld) {
	auto s = only_postgres(Owner::redis, Continuity::broken);
	s.postgres_deletes = Deletes::held;
	EXPECT_EQ(decide(s), kHold);
	s = only_redis(Owner::postgres, Continuity::broken);
	s.redis_deletes = Deletes::held;
	EXPECT_EQ(decide(s), kHold);
}

TEST(Decide, WhatIsNewInPostgresIsPushedAndWhatRedisEndedIsNot) {
	auto s = only_postgres(Owner::redis, Continuity::kept);
	s.pending = Pending::changed;
	EXPECT_EQ(decide(s), kEnd);
	s.redis_is_base = true;
	EXPECT_EQ(decide(s), kPush);
}

TEST(Decide, ALogoutInPostgresBeatsWhateverRedisHolds) {
	for_each_situation([](const Situation &s) {
		if (s.pending != Pending::ended || s.redis != RedisState::value)
			return;
		EXPECT_EQ(decide(s), kDeleteRedis);
	});
	auto s = both_hold(Changed::both, Changed::both, Owner::redis);
	s.pending = Pending::renewed;
	EXPECT_EQ(decide(s), kPush);
}

TEST(Decide, ALateWriteInRedisWithinTheGuardIsDeletedAgain) {
	auto s = only_redis(Owner::redis, Continuity::kept);
	s.tombstone = Tombstone::by_postgres;
	EXPECT_EQ(decide(s), kDeleteRedis);
	s.tombstone = Tombstone::by_redis;
	EXPECT_EQ(decide(s), kPull);
	s.owner = Owner::postgres;
	EXPECT_EQ(decide(s), kDeleteRedis);
}

TEST(Decide, ARowThatExpiredHereIsPulledAgainWhenRedisRenewedIt) {
	auto s = only_redis(Owner::postgres, Continuity::kept);
	s.pending = Pending::changed;
	EXPECT_EQ(decide(s), kPull);
	s.redis_is_base = true;
	EXPECT_EQ(decide(s), kDeleteRedis);
}

TEST(Decide, AKeptEvictionIsLeftAloneUntilTheRowChanges) {
	auto s = only_postgres(Owner::redis, Continuity::kept);
	s.eviction = Eviction::kept;
	EXPECT_EQ(decide(s), kNothing);
	s.pending = Pending::changed;
	EXPECT_EQ(decide(s), kPush);
}

TEST(Decide, WhatCannotBeHeldIsRejectedUnlessPostgresWins) {
	Situation s;
	s.redis = RedisState::rejected;
	s.postgres = PostgresState::live;
	EXPECT_EQ(decide(s), kReject);
	s.pending = Pending::changed;
	EXPECT_EQ(decide(s), kReject);
	s.owner = Owner::postgres;
	EXPECT_EQ(decide(s), kPush);
	s.pending = Pending::ended;
	s.postgres = PostgresState::absent;
	EXPECT_EQ(decide(s), kDeleteRedis);
	s.redis = RedisState::other_type;
	EXPECT_EQ(decide(s), kReject);
}

TEST(Decide, OverAllInputsErrorsRetryAndDirectionsAreGivenExactlyWithWrites) {
	for_each_situation([](const Situation &s) {
		const Decision decision = decide(s);
		EXPECT_EQ(decision.action == Action::retry, s.redis == RedisState::error);
		if (s.redis == RedisState::error) {
			EXPECT_EQ(decision, kRetry);
		}
		const bool directed =
			decision.payload != Direction::none || decision.expiry != Direction::none;
		EXPECT_EQ(directed, decision.action == Action::write);
		if (decision.ended) {
			EXPECT_EQ(decision.action, Action::delete_postgres);
			EXPECT_EQ(s.continuity, Continuity::kept);
		}
		if (decision.action == Action::delete_postgres) {
			EXPECT_EQ(s.redis, RedisState::absent);
			EXPECT_EQ(s.postgres, PostgresState::live);
			EXPECT_EQ(s.eviction, Eviction::none);
			EXPECT_EQ(s.postgres_deletes, Deletes::allowed);
		}
		if (decision.action == Action::hold) {
			EXPECT_EQ(s.postgres_deletes, Deletes::held);
		}
		EXPECT_STRNE(action_name(decision.action), "unknown");
	});
}

TEST(Decide, ASessionRenewedAfterItsLogoutIsPushedWhateverRedisHolds) {
	for (const auto owner : {Owner::redis, Owner::postgres}) {
		Situation s;
		s.postgres = PostgresState::live;
		s.pending = Pending::renewed;
		s.owner = owner;
		for (const auto redis : {RedisState::absent, RedisState::rejected}) {
			s.redis = redis;
			EXPECT_EQ(decide(s), kPush);
		}
		s.redis = RedisState::other_type;
		EXPECT_EQ(decide(s), kReject);
	}
}

TEST(Decide, WhatRedisHoldsIsRejectedWhereNothingHereWasChanged) {
	for (const auto owner : {Owner::redis, Owner::postgres})
		for (const auto postgres : {PostgresState::absent, PostgresState::live}) {
			Situation s;
			s.postgres = postgres;
			s.owner = owner;
			for (const auto redis : {RedisState::rejected, RedisState::other_type}) {
				s.redis = redis;
				EXPECT_EQ(decide(s), kReject);
			}
			s.redis = RedisState::rejected;
			s.continuity = Continuity::broken;
			const bool wins = owner == Owner::postgres && postgres == PostgresState::live;
			EXPECT_EQ(decide(s), wins ? kPush : kReject);
		}
}

} // namespace
} // namespace session_store::core
