// What is due and how long failures wait.

#include <gtest/gtest.h>

#include "core/schedule.h"

namespace session_store::core {
namespace {

TEST(Schedule, IsDueAtTheIntervalAndNotBefore) {
	EXPECT_EQ(until_due(Millis{1000}, Millis{400}, Millis{700}), Millis{100});
	EXPECT_EQ(until_due(Millis{1100}, Millis{400}, Millis{700}), Millis{0});
	EXPECT_TRUE(due(Millis{9999}, Millis{400}, Millis{700}));
	EXPECT_FALSE(due(Millis{1099}, Millis{400}, Millis{700}));
}

TEST(Schedule, WhatNeverHappenedIsDueAtOnce) {
	EXPECT_TRUE(due(Millis{0}, kNever, Millis{700}));
	EXPECT_TRUE(due(Millis{-5}, kNever, Millis{700}));
}

TEST(Schedule, AnIntervalOfZeroMeansNever) {
	EXPECT_EQ(until_due(Millis{1}, kNever, Millis{0}), kLongestWait);
	EXPECT_EQ(until_due(Millis{1}, Millis{0}, Millis{-3}), kLongestWait);
}

TEST(Schedule, AClockSetBackDelaysByOneIntervalAtMost) {
	EXPECT_EQ(until_due(Millis{100}, Millis{1'000'000}, Millis{700}), Millis{700});
}

TEST(Schedule, BackoffDoublesFromATenthToFourSeconds) {
	const Millis expected[] = {Millis{0}, Millis{100}, Millis{200}, Millis{400}, Millis{800},
		Millis{1600}, Millis{3200}, Millis{4000}, Millis{4000}};
	for (unsigned failures = 0; failures < std::size(expected); failures++)
		EXPECT_EQ(backoff(failures), expected[failures]) << failures;
	EXPECT_EQ(backoff(~0U), kLongestBackoff);
}

TEST(Schedule, JitterTakesOffAQuarterAtMostAndIsRepeatable) {
	bool differ = false;
	for (std::uint64_t seed = 1; seed < 200; seed++)
		for (unsigned failures = 1; failures < 10; failures++) {
			const Millis wait = backoff(failures, seed);
			EXPECT_EQ(wait, backoff(failures, seed));
			EXPECT_LE(wait, backoff(failures));
			EXPECT_GE(wait, backoff(failures) * 3 / 4);
			differ = differ || wait != backoff(failures, seed + 1);
		}
	EXPECT_TRUE(differ);
}

TEST(Schedule, RetriesWithBackoffAfterFailuresElseAtTheInterval) {
	EXPECT_EQ(until_retry(Millis{1000}, Millis{1000}, Millis{60'000}, 0), Millis{60'000});
	EXPECT_EQ(until_retry(Millis{1000}, Millis{1000}, Millis{60'000}, 2), Millis{200});
	EXPECT_EQ(until_retry(Millis{1300}, Millis{1000}, Millis{60'000}, 2), Millis{0});
}

TEST(Schedule, LocksAreTriedWithoutWaitingFirst) {
	for (unsigned failures = 0; failures < kTriesWithoutWaiting; failures++)
		EXPECT_EQ(lock_try(failures).wait, Millis{0}) << failures;
	EXPECT_GT(lock_try(kTriesWithoutWaiting).wait, Millis{0});
}

TEST(Schedule, WaitingForLocksTakesLessThanAHundredthOfTheTime) {
	for (unsigned failures = 0; failures < 1000; failures++) {
		const LockTry attempt = lock_try(failures);
		EXPECT_LE(attempt.wait, Millis{50}) << failures;
		EXPECT_LT(attempt.wait * 100, attempt.pause + attempt.wait) << failures;
		EXPECT_LE(attempt.pause, Millis{60'000}) << failures;
	}
}

} // namespace
} // namespace session_store::core
