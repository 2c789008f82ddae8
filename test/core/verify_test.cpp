// When two sides differ.

#include <gtest/gtest.h>

#include "core/verify.h"

namespace session_store::core {
namespace {

constexpr std::int64_t kSecond = 1'000'000;
constexpr VerifyRules kRules{100 * kSecond, 0, kSecond};

SideState present(std::uint64_t digest, std::int64_t expire) {
	return {Presence::present, digest, expire};
}

const SideState kAbsent{Presence::absent, 0, 0};

TEST(Verify, EqualSidesDoNotDiffer) {
	const SideState one = present(1, 200 * kSecond);
	EXPECT_EQ(find_difference({one, one}, kRules), Difference::none);
	EXPECT_EQ(find_difference({kAbsent, kAbsent}, kRules), Difference::none);
	const SideState forever = present(1, kNeverExpires);
	EXPECT_EQ(find_difference({forever, forever}, kRules), Difference::none);
}

TEST(Verify, NamesWhatDiffers) {
	const SideState one = present(1, 200 * kSecond);
	EXPECT_EQ(find_difference({one, kAbsent}, kRules), Difference::missing_in_postgres);
	EXPECT_EQ(find_difference({kAbsent, one}, kRules), Difference::missing_in_redis);
	EXPECT_EQ(find_difference({one, present(2, 200 * kSecond)}, kRules), Difference::payload);
	EXPECT_EQ(find_difference({one, present(2, 300 * kSecond)}, kRules), Difference::payload);
	EXPECT_EQ(find_difference({one, present(1, 300 * kSecond)}, kRules), Difference::expire);
	EXPECT_EQ(find_difference({present(1, kNeverExpires), kAbsent}, kRules),
		Difference::missing_in_postgres);
}

TEST(Verify, ExpiriesHaveATolerance) {
	const SideState one = present(1, 200 * kSecond);
	EXPECT_EQ(find_difference({one, present(1, 201 * kSecond)}, kRules), Difference::none);
	EXPECT_EQ(find_difference({one, present(1, 199 * kSecond)}, kRules), Difference::none);
	EXPECT_EQ(find_difference({one, present(1, 201 * kSecond + 1)}, kRules), Difference::expire);
	EXPECT_EQ(find_difference({present(1, 201 * kSecond + 1), one}, kRules), Difference::expire);
	EXPECT_EQ(find_difference({one, present(1, kNeverExpires)}, kRules), Difference::expire);
	EXPECT_EQ(find_difference({present(1, kNeverExpires), one}, kRules), Difference::expire);
}

TEST(Verify, WhatHasExpiredByEitherClockIsMissingNowhere) {
	const SideState over = present(1, 100 * kSecond);
	const SideState soon = present(1, 103 * kSecond);
	const VerifyRules ahead{100 * kSecond, 5 * kSecond, kSecond};
	const VerifyRules behind{100 * kSecond, -5 * kSecond, kSecond};
	EXPECT_EQ(find_difference({over, kAbsent}, kRules), Difference::none);
	EXPECT_EQ(find_difference({kAbsent, over}, kRules), Difference::none);
	EXPECT_EQ(find_difference({over, kAbsent}, behind), Difference::none);
	EXPECT_EQ(find_difference({kAbsent, soon}, kRules), Difference::missing_in_redis);
	EXPECT_EQ(find_difference({kAbsent, soon}, ahead), Difference::none);
	EXPECT_EQ(find_difference({kAbsent, soon}, behind), Difference::missing_in_redis);
	EXPECT_EQ(find_difference({over, present(2, 90 * kSecond)}, kRules), Difference::none);
	EXPECT_EQ(find_difference({over, present(1, 200 * kSecond)}, kRules), Difference::expire);
}

TEST(Verify, RejectsAreCountedApartAndTheUnknownIsAskedAgain) {
	const SideState one = present(1, 200 * kSecond);
	const SideState rejected{Presence::rejected, 0, 0};
	EXPECT_EQ(find_difference({rejected, one}, kRules), Difference::none);
	EXPECT_EQ(find_difference({rejected, kAbsent}, kRules), Difference::none);
	EXPECT_EQ(find_difference({SideState{}, one}, kRules), Difference::unknown);
	EXPECT_EQ(find_difference({one, SideState{}}, kRules), Difference::unknown);
}

TEST(Verify, AStateIsTheSameByAllOfIt) {
	EXPECT_TRUE(same_state(present(1, 5), present(1, 5)));
	EXPECT_FALSE(same_state(present(1, 5), present(2, 5)));
	EXPECT_FALSE(same_state(present(1, 5), present(1, 6)));
	EXPECT_FALSE(same_state(present(1, 5), kAbsent));
	EXPECT_TRUE(same_state(kAbsent, SideState{Presence::absent, 7, 7}));
}

TEST(Verify, DifferencesHaveTheirNames) {
	EXPECT_STREQ(difference_name(Difference::missing_in_postgres), "missing_in_postgres");
	EXPECT_STREQ(difference_name(Difference::missing_in_redis), "missing_in_redis");
	EXPECT_STREQ(difference_name(Difference::payload), "payload");
	EXPECT_STREQ(difference_name(Difference::expire), "expire");
}

} // namespace
} // namespace session_store::core
