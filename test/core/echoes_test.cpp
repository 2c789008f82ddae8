// Knowing again what was written.

#include <gtest/gtest.h>

#include <string>

#include "core/echoes.h"

namespace session_store::core {
namespace {

constexpr HashSeed kSeed{1, 2};
constexpr std::size_t kKeys = 1000;

TEST(Echoes, KnowsWhatWasNotedLastAndForgetsItThen) {
	Echoes echoes(kSeed, kKeys);
	EXPECT_FALSE(echoes.take("k", {false, 5, "v"}));
	echoes.note("k", {false, 4, "older"});
	echoes.note("k", {false, 5, "v"});
	EXPECT_FALSE(echoes.take("other", {false, 5, "v"}));
	EXPECT_TRUE(echoes.take("k", {false, 5, "v"}));
	EXPECT_FALSE(echoes.take("k", {false, 5, "v"}));
}

TEST(Echoes, AnyDifferenceIsNoEchoAndIsForgotten) {
	for (const KeyState &other : {KeyState{false, 6, "v"}, KeyState{false, 5, "w"},
			 KeyState{false, 5, ""}, KeyState{true, 5, "v"}}) {
		Echoes echoes(kSeed, kKeys);
		echoes.note("k", {false, 5, "v"});
		EXPECT_FALSE(echoes.take("k", other));
		EXPECT_FALSE(echoes.take("k", {false, 5, "v"})) << "it may be what was written again";
	}
}

TEST(Echoes, AbsenceHasNeitherValueNorExpiry) {
	Echoes echoes(kSeed, kKeys);
	echoes.note("k", {true, 5, "v"});
	EXPECT_TRUE(echoes.take("k", {true, 0, ""}));
	echoes.note("k", {true, 0, ""});
	EXPECT_FALSE(echoes.take("k", {false, 0, ""}));
}

TEST(Echoes, ForgettingIsOfOneKeyOrOfAll) {
	Echoes echoes(kSeed, kKeys);
	echoes.forget("k");
	for (const char *key : {"a", "b", "c"})
		echoes.note(key, {false, 1, key});
	echoes.forget("a");
	EXPECT_FALSE(echoes.take("a", {false, 1, "a"}));
	EXPECT_TRUE(echoes.take("b", {false, 1, "b"}));
	echoes.clear();
	EXPECT_FALSE(echoes.take("c", {false, 1, "c"}));
}

TEST(Echoes, KeepsMostOfWhatItHasRoomForAndConfusesNothing) {
	Echoes echoes(kSeed, kKeys);
	const auto state = [](int i) { return KeyState{false, i, "same"}; };
	for (int i = 0; i < 10'000; i++)
		echoes.note(std::to_string(i), state(i));
	int known = 0;
	for (int i = 0; i < 10'000; i++) {
		EXPECT_FALSE(echoes.take("not " + std::to_string(i), state(i)));
		known += echoes.take(std::to_string(i), state(i)) ? 1 : 0;
	}
	EXPECT_GT(known, 900);
	EXPECT_LT(known, 1100);
}

} // namespace
} // namespace session_store::core
