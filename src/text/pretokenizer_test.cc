// The scanner on worked cases; the comparison with the real engine is in tests/text.
#include "text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/unicode.h"

namespace seacliff {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Pieces(std::string_view text) {
  std::vector<std::string> pieces;
  Pretokenizer pretokenizer(text);
  for (auto piece = pretokenizer.Next(); !piece.empty(); piece = pretokenizer.Next()) {
    pieces.emplace_back(piece);
  }
  return pieces;
}

// What the Hugging Face engine gives for Unicode 16.0.
TEST(UnicodeTables, HaveTheRightNumberOfCodePointsInEachClass) {
  int letters = 0, marks = 0, numbers = 0, punctuation = 0, symbols = 0, spaces = 0, cjk = 0;
  for (uint32_t code_point = 0; code_point <= unicode::kMaxCodePoint; ++code_point) {
    const uint8_t bits = unicode::ClassOf(code_point);
    letters += (bits & unicode::kLetter) != 0;
    marks += (bits & unicode::kMark) != 0;
    numbers += (bits & unicode::kNumber) != 0;
    punctuation += (bits & unicode::kPunctuation) != 0;
    symbols += (bits & unicode::kSymbol) != 0;
    spaces += (bits & unicode::kSpace) != 0;
    cjk += (bits & unicode::kCjk) != 0;
  }
  EXPECT_EQ(letters, 141028);
  EXPECT_EQ(marks, 2501);
  EXPECT_EQ(numbers, 1911);
  EXPECT_EQ(punctuation, 855);
  EXPECT_EQ(symbols, 8514);
  EXPECT_EQ(spaces, 25);
  EXPECT_EQ(cjk, 0x9FA5 - 0x4E00 + 1 + 0xC0);
}

TEST(Pretokenizer, CutsWordsWithTheirSpace) {
  EXPECT_THAT(Pieces("Hello big world"), ElementsAre("Hello", " big", " world"));
  EXPECT_THAT(Pieces("don't"), ElementsAre("don", "'t"));
  EXPECT_THAT(Pieces("\tword\x01"
                     "x"),
              ElementsAre("\tword", "\x01x"));
}

TEST(Pretokenizer, CutsNumbersInThrees) {
  EXPECT_THAT(Pieces("12345678"), ElementsAre("123", "456", "78"));
  EXPECT_THAT(Pieces("a12 3"), ElementsAre("a", "12", " ", "3"));
  EXPECT_THAT(Pieces("²Ⅷ①٣"), ElementsAre("²Ⅷ①", "٣"));
}

TEST(Pretokenizer, CutsCjkFromTheRest) {
  EXPECT_THAT(Pieces("abc你好def"), ElementsAre("abc", "你好", "def"));
  EXPECT_THAT(Pieces(" 你好"), ElementsAre(" ", "你好"));
  EXPECT_THAT(Pieces("カ・タ"), ElementsAre("カ", "・", "タ"));
}

TEST(Pretokenizer, KeepsPunctuationWithFollowingLineEnds) {
  EXPECT_THAT(Pieces("a.\n\nb"), ElementsAre("a", ".\n\n", "b"));
  EXPECT_THAT(Pieces("x => y"), ElementsAre("x", " =>", " y"));
  EXPECT_THAT(Pieces("\"quoted\""), ElementsAre("\"quoted", "\""));
  EXPECT_THAT(Pieces("!é"), ElementsAre("!", "é"));
}

TEST(Pretokenizer, CutsWhiteSpace) {
  EXPECT_THAT(Pieces("a  b"), ElementsAre("a", " ", " b"));
  EXPECT_THAT(Pieces("b  \n\n c"), ElementsAre("b", "  \n\n", " c"));
  EXPECT_THAT(Pieces("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(Pieces("a  1"), ElementsAre("a", "  ", "1"));
  EXPECT_THAT(Pieces("\xC2\x85\xE3\x80\x80."), ElementsAre("\xC2\x85", "\xE3\x80\x80", "."));
}

TEST(Pretokenizer, JoinsGapCharacters) {
  const std::string zero_width = "\xE2\x80\x8B", unassigned = "\xCD\xB8";  // U+200B, U+0378
  EXPECT_THAT(Pieces(zero_width + unassigned + "."), ElementsAre(zero_width + unassigned, "."));
  EXPECT_THAT(Pieces(zero_width + unassigned + "a"), ElementsAre(zero_width, unassigned + "a"));
}

TEST(Pretokenizer, EmptyTextHasNoPieces) { EXPECT_TRUE(Pieces("").empty()); }

}  // namespace
}  // namespace seacliff
