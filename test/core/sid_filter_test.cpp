// The set of hashes: no sid forgotten, the limit kept.

#include <gtest/gtest.h>

#include <string>

#include "core/sid_filter.h"

namespace session_store::core {
namespace {

TEST(SidFilter, RemembersEverySidAndNoOther) {
	SidFilter filter({1, 2}, 64 << 20);
	EXPECT_FALSE(filter.seen("s1"));
	for (int i = 0; i < 50'000; i++)
		EXPECT_TRUE(filter.insert("s" + std::to_string(i)));
	EXPECT_FALSE(filter.insert("s7"));
	EXPECT_EQ(filter.size(), 50'000U);
	for (int i = 0; i < 50'000; i++)
		EXPECT_TRUE(filter.seen("s" + std::to_string(i)));
	for (int i = 0; i < 50'000; i++)
		EXPECT_FALSE(filter.seen("t" + std::to_string(i)));
	EXPECT_LE(filter.bytes(), 50'000U * 32);
}

TEST(SidFilter, StopsAtItsLimitAndSaysSo) {
	SidFilter filter({1, 2}, 16 << 10);
	for (int i = 0; i < 1536; i++)
		filter.insert("s" + std::to_string(i));
	EXPECT_FALSE(filter.overflowed());
	EXPECT_FALSE(filter.insert("s1"));
	EXPECT_FALSE(filter.overflowed());
	EXPECT_TRUE(filter.insert("one more"));
	EXPECT_TRUE(filter.overflowed());
	EXPECT_FALSE(filter.seen("one more"));
	EXPECT_TRUE(filter.seen("s1"));
	EXPECT_LE(filter.bytes(), 16U << 10);
}

TEST(SidFilter, HasNoRoomAtAllWithoutBytes) {
	SidFilter filter({1, 2}, 0);
	EXPECT_TRUE(filter.insert("x"));
	EXPECT_TRUE(filter.overflowed());
	EXPECT_FALSE(filter.seen("x"));
}

// The first vector that Rust's SipHasher13 is tested with.
TEST(KeyedHash, IsSipHash13) {
	const HashSeed seed{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
	EXPECT_EQ(keyed_hash("", seed), 0xabac0158050fc4dcU);
}

TEST(KeyedHash, DependsOnEveryByteAndOnTheSeed) {
	const std::string text = "abcdefghijklmnop";
	for (std::size_t i = 0; i <= text.size(); i++) {
		EXPECT_NE(keyed_hash(text.substr(0, i), {1, 2}), keyed_hash(text.substr(0, i), {1, 3}));
		if (i > 0) {
			std::string other = text.substr(0, i);
			other[i - 1] ^= 1;
			EXPECT_NE(keyed_hash(text.substr(0, i), {1, 2}), keyed_hash(other, {1, 2}));
			EXPECT_NE(
				keyed_hash(text.substr(0, i), {1, 2}), keyed_hash(text.substr(0, i - 1), {1, 2}));
		}
	}
}

} // namespace
} // namespace session_store::core
