// The decision over its whole input table.

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "core/decide.h"

namespace session_store::core {
namespace {

constexpr RedisState kRedis[] = {RedisState::absent, RedisState::value, RedisState::other_type,
	RedisState::rejected, RedisState::error};
constexpr PostgresState kPostgres[] = {PostgresState::absent, PostgresState::equal,
	PostgresState::differs_expiry, PostgresState::differs_payload, PostgresState::differs_both};

int for_each_situation(const std::function<void(const Situation &)> &check) {
	int count = 0;
	for (const auto redis : kRedis)
		for (const auto postgres : kPostgres)
			for (const auto owner : {Owner::redis, Owner::postgres})
				for (const auto continuity : {Continuity::kept, Continuity::broken})
					for (const auto pending : {Pending::none, Pending::changed, Pending::ended})
						for (const auto tombstone : {Tombstone::none, Tombstone::guarding})
							for (const auto eviction : {Eviction::none, Eviction::kept})
								for (const auto deletes : {Deletes::allowed, Deletes::held}) {
									check({redis, postgres, owner, continuity, pending, tombstone,
										eviction, deletes});
									count++;
								}
	return count;
}

bool plain(const Situation &s) {
	return s.owner == Owner::redis && s.pending == Pending::none &&
		s.tombstone == Tombstone::none && s.eviction == Eviction::none &&
		s.deletes == Deletes::allowed;
}

// What pulling does when nothing else is going on, written down cell by cell.
TEST(Decide, ThePlainPullTable) {
	constexpr Decision kNothing{Action::nothing, false, false};
	constexpr Decision kReject{Action::reject, false, false};
	constexpr Decision kRetry{Action::retry, false, false};
	constexpr Decision kDelete{Action::delete_postgres, false, false};
	constexpr Decision kBoth{Action::write_postgres, true, true};
	constexpr Decision kExpiry{Action::write_postgres, false, true};
	constexpr Decision kPayload{Action::write_postgres, true, false};
	const Decision table[5][5] = {
		// PostgreSQL: absent, equal, expiry, payload, both differ
		{kNothing, kDelete, kDelete, kDelete, kDelete}, // absent in Redis
		{kBoth, kNothing, kExpiry, kPayload, kBoth},    // a value
		{kReject, kReject, kReject, kReject, kReject},  // another type
		{kReject, kReject, kReject, kReject, kReject},  // rejected
		{kRetry, kRetry, kRetry, kRetry, kRetry},       // error
	};
	const int seen = for_each_situation([&](const Situation &s) {
		if (plain(s)) {
			EXPECT_EQ(decide(s), table[static_cast<int>(s.redis)][static_cast<int>(s.postgres)])
				<< action_name(decide(s).action);
		}
	});
	EXPECT_EQ(seen, 5 * 5 * 2 * 2 * 3 * 2 * 2 * 2);
}

TEST(Decide, DeletesOnlyWhatRedisOwnsAndSurelyDoesNotHave) {
	for_each_situation([](const Situation &s) {
		if (decide(s).action != Action::delete_postgres)
			return;
		EXPECT_EQ(s.redis, RedisState::absent);
		EXPECT_NE(s.postgres, PostgresState::absent);
		EXPECT_EQ(s.owner, Owner::redis);
		EXPECT_EQ(s.pending, Pending::none);
		EXPECT_EQ(s.eviction, Eviction::none);
		EXPECT_EQ(s.deletes, Deletes::allowed);
	});
}

TEST(Decide, NeverTouchesRedisYet) {
	for_each_situation([](const Situation &s) {
		EXPECT_NE(decide(s).action, Action::write_redis);
		EXPECT_NE(decide(s).action, Action::delete_redis);
	});
}

TEST(Decide, ErrorsAreAlwaysTriedAgain) {
	for_each_situation([](const Situation &s) {
		if (s.redis == RedisState::error) {
			EXPECT_EQ(decide(s).action, Action::retry);
		}
	});
}

TEST(Decide, WhatPostgresOwnsOrHasPendingIsLeftAlone) {
	for_each_situation([](const Situation &s) {
		if (s.owner == Owner::postgres || s.pending != Pending::none) {
			const Action action = decide(s).action;
			EXPECT_TRUE(action == Action::nothing || action == Action::retry);
		}
	});
}

TEST(Decide, ALogoutInItsGuardIsNotUndoneByAValue) {
	for_each_situation([](const Situation &s) {
		if (s.tombstone == Tombstone::guarding) {
			EXPECT_NE(decide(s).action, Action::write_postgres);
		}
	});
}

TEST(Decide, SaysWhatToWriteExactlyWhenItWrites) {
	for_each_situation([](const Situation &s) {
		const Decision decision = decide(s);
		EXPECT_EQ(decision.payload || decision.expiry, decision.action == Action::write_postgres);
		EXPECT_STRNE(action_name(decision.action), "unknown");
	});
}

} // namespace
} // namespace session_store::core
