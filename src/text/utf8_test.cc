// Replacement by maximal subparts, and what may still become a character.
#include "text/utf8.h"

#include <gtest/gtest.h>

namespace seacliff::utf8 {
namespace {

const std::string kR(kReplacement);

TEST(Utf8, ReplacesEachMaximalSubpart) {
  EXPECT_EQ(ReplaceInvalid("ok \xE2\x82\xAC"), "ok \xE2\x82\xAC");
  EXPECT_EQ(ReplaceInvalid("\x80\xFF"), kR + kR);
  EXPECT_EQ(ReplaceInvalid("\xE2\x82"
                           "a"),
            kR + "a");
  EXPECT_EQ(ReplaceInvalid("\xF0\x9F\x98"), kR);
  EXPECT_EQ(ReplaceInvalid("\xC0\xAF"), kR + kR);                    // overlong
  EXPECT_EQ(ReplaceInvalid("\xED\xA0\x80"), kR + kR + kR);           // a surrogate
  EXPECT_EQ(ReplaceInvalid("\xF4\x90\x80\x80"), kR + kR + kR + kR);  // above U+10FFFF
}

TEST(Utf8, KeepsBackAnIncompleteCharacterOnly) {
  EXPECT_EQ(CompleteLength(""), 0u);
  EXPECT_EQ(CompleteLength("a\xF0"), 1u);
  EXPECT_EQ(CompleteLength("a\xF0\x9F\x98"), 1u);
  EXPECT_EQ(CompleteLength("a\xF0\x9F\x98\x80"), 5u);
  EXPECT_EQ(CompleteLength("a\xE2\x82"), 1u);
  EXPECT_EQ(CompleteLength("a\x82"), 2u);
  EXPECT_EQ(CompleteLength("\xED\xA0"), 2u);
}

TEST(Utf8, WritesCodePoints) {
  std::string out;
  for (const uint32_t code_point : {0x41u, 0xE9u, 0x20ACu, 0x1F600u}) {
    AppendCodePoint(code_point, &out);
  }
  EXPECT_EQ(out, "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

}  // namespace
}  // namespace seacliff::utf8
