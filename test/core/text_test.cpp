// UTF-8, sids, what may be shown, prefixes, and the rollout bucket.

#include <gtest/gtest.h>

#include <string>

#include "core/glob.h"
#include "core/rollout.h"
#include "core/text.h"

namespace session_store::core {
namespace {

using namespace std::string_view_literals;

TEST(Text, KnowsValidUtf8) {
	for (const std::string_view text : {""sv, "abc"sv, "\xC2\x80"sv, "\xDF\xBF"sv, "\xE0\xA0\x80"sv,
			 "\xED\x9F\xBF"sv, "\xEE\x80\x80"sv, "\xF0\x90\x80\x80"sv, "\xF4\x8F\xBF\xBF"sv})
		EXPECT_TRUE(valid_utf8(text)) << text;
	for (const std::string_view text : {"\0"sv, "a\0b"sv, "\x80"sv, "\xC0\x80"sv, "\xC1\xBF"sv,
			 "\xC2"sv, "\xE0\x9F\xBF"sv, "\xED\xA0\x80"sv, "\xE2\x82"sv, "\xF0\x8F\xBF\xBF"sv,
			 "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xFF"sv, "ok\xE2\x28\xA1"sv})
		EXPECT_FALSE(valid_utf8(text)) << testing::PrintToString(std::string(text));
}

TEST(Text, ClipsBetweenCharacters) {
	EXPECT_EQ(utf8_clip("abc", 3), "abc");
	EXPECT_EQ(utf8_clip("a\xE2\x82\xAC", 3), "a");
	EXPECT_EQ(utf8_clip("a\xE2\x82\xACz", 4), "a\xE2\x82\xAC");
	EXPECT_EQ(utf8_clip("\xE2\x82\xAC", 0), "");
}

TEST(Text, ChecksSids) {
	std::string euros;
	for (int i = 0; i < 255; i++)
		euros += "\xE2\x82\xAC";
	EXPECT_EQ(check_sid("x"), SidProblem::none);
	EXPECT_EQ(check_sid(euros), SidProblem::none);
	EXPECT_EQ(check_sid(euros + "x"), SidProblem::too_long);
	EXPECT_EQ(check_sid(std::string(256, 'x')), SidProblem::too_long);
	EXPECT_EQ(check_sid(""), SidProblem::empty);
	EXPECT_EQ(check_sid("a\0b"sv), SidProblem::nul_byte);
	EXPECT_EQ(check_sid("a\xFF"), SidProblem::not_utf8);
	for (const auto problem :
		{SidProblem::empty, SidProblem::too_long, SidProblem::nul_byte, SidProblem::not_utf8})
		EXPECT_STRNE(sid_problem_text(problem), "");
}

TEST(Text, ShowsFourCharactersOfASid) {
	EXPECT_EQ(sid_excerpt("abcdefgh"), "abcd");
	EXPECT_EQ(sid_excerpt("ab"), "ab");
	EXPECT_EQ(sid_excerpt("\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC"),
		"\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC");
	EXPECT_EQ(sid_excerpt("a\xFFzzzz"), "");
	EXPECT_EQ(sid_excerpt("abcd\xFF"), "abcd");
}

TEST(Text, TakesThePrefixOff) {
	std::string_view sid;
	EXPECT_TRUE(sid_of_key("sess:1", "sess:", &sid));
	EXPECT_EQ(sid, "1");
	EXPECT_TRUE(sid_of_key("sess:", "sess:", &sid));
	EXPECT_EQ(sid, "");
	EXPECT_TRUE(sid_of_key("x", "", &sid));
	EXPECT_EQ(sid, "x");
	EXPECT_FALSE(sid_of_key("ses", "sess:", &sid));
	EXPECT_FALSE(sid_of_key("other:1", "sess:", &sid));
}

TEST(Glob, MatchesAPrefixLiterally) {
	EXPECT_EQ(glob_for_prefix("sess:"), "sess:*");
	EXPECT_EQ(glob_for_prefix(""), "*");
	EXPECT_EQ(glob_for_prefix("a*b?[c]\\^-"), "a\\*b\\?\\[c\\]\\\\\\^\\-*");
}

// Values of zlib.crc32(...) % 100 in another language.
TEST(Rollout, IsTheCrcModuloHundred) {
	EXPECT_EQ(rollout_bucket(""), 0U);
	EXPECT_EQ(rollout_bucket("123456789"), 0xCBF43926U % 100);
	EXPECT_EQ(rollout_bucket("a"), 0xE8B7BE43U % 100);
}

TEST(Rollout, GrowsFromNobodyToEverybody) {
	for (int i = 0; i < 1000; i++) {
		const std::string sid = "sid" + std::to_string(i);
		EXPECT_FALSE(postgres_owns(sid, 0));
		EXPECT_TRUE(postgres_owns(sid, 100));
		for (int percent = 0; percent < 100; percent++)
			EXPECT_LE(postgres_owns(sid, percent), postgres_owns(sid, percent + 1));
	}
}

} // namespace
} // namespace session_store::core
