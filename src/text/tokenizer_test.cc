// Tokenizer on a small synthetic file and on the demo model's; agreement with the real engine on
// the real file is in tests/text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "seacliff/text.h"
#include "text/testing_tokenizer.h"

namespace seacliff {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

TEST(Tokenizer, EncodesAndDecodes) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  EXPECT_THAT(tokenizer.Encode("Hello", false), ElementsAre(260));
  EXPECT_THAT(tokenizer.Encode("abHello", false), ElementsAre(256, 260));
  EXPECT_EQ(tokenizer.Encode("xyz", false), Bytes("xyz"));
  EXPECT_TRUE(tokenizer.Encode("", true).empty());
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{260, 256, -1, 1 << 20}), "Helloab");
  EXPECT_EQ(tokenizer.TokenBytes(265), "\xE4\xBD");
  EXPECT_EQ(tokenizer.TokenBytes(-1), "");
}

TEST(Tokenizer, KnowsItsAddedTokens) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  const auto begin = tokenizer.bos_id();
  ASSERT_TRUE(begin.has_value());
  EXPECT_TRUE(tokenizer.IsSpecial(*begin));
  const auto think = tokenizer.SpecialId("<think>");
  ASSERT_TRUE(think.has_value());
  EXPECT_TRUE(tokenizer.IsAdded(*think));
  EXPECT_FALSE(tokenizer.IsSpecial(*think));
  EXPECT_FALSE(tokenizer.SpecialId("Hello").has_value());
  EXPECT_EQ(tokenizer.end_ids().size(), 4u);
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{*begin, *think}),
            "<｜begin▁of▁sentence｜><think>");
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{*begin, *think}, true), "<think>");
  for (const int32_t id : tokenizer.never_sampled_ids()) EXPECT_TRUE(tokenizer.IsAdded(id));
  EXPECT_NE(PrintSpecials(tokenizer).find("think_end"), std::string::npos);
}

TEST(Tokenizer, MatchesAddedTokensLeftmostLongest) {
  const Tokenizer tokenizer = testing_tokenizer::Make({"<x", "<x>", "<x>y", "x>y>"});
  const int32_t x = *tokenizer.SpecialId("<x"), xy = *tokenizer.SpecialId("<x>y");
  EXPECT_THAT(tokenizer.Encode("a<x>y>", true), ElementsAre('a', xy, '>'));
  EXPECT_THAT(tokenizer.Encode("<x<x>y", true), ElementsAre(x, xy));
  EXPECT_EQ(tokenizer.Encode("<x", false), Bytes("<x"));
  EXPECT_THAT(tokenizer.Encode("x>y>", true), ElementsAre(*tokenizer.SpecialId("x>y>")));
}

TEST(Tokenizer, SegmentsHideAddedTokensInClientText) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  const int32_t think = *tokenizer.SpecialId("<think>");
  const auto encode = [&](std::vector<TextSegment> segments) {
    return tokenizer.EncodeSegments(segments);
  };
  EXPECT_THAT(encode({{"<think>", true}}), ElementsAre(think));
  EXPECT_EQ(encode({{"<think>", false}}), Bytes("<think>"));
  EXPECT_EQ(encode({{"<thi", true}, {"nk>", false}}), Bytes("<think>"));
  EXPECT_EQ(encode({{"<thi", false}, {"nk>", true}}), Bytes("<think>"));
  EXPECT_THAT(encode({{"<thi", true}, {"", false}, {"nk>", true}}), ElementsAre(think));
  EXPECT_THAT(encode({{"<think>", false}, {"<think>", true}}).back(), think);
  // Ordinary tokens cross the border.
  EXPECT_THAT(encode({{"He", true}, {"llo", false}}), ElementsAre(260));
  EXPECT_THAT(encode({{".", false}, {"<think>", true}}), ElementsAre('.', think));
}

TEST(Tokenizer, ReplacesInvalidUtf8) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("a\x80\xE4\xBD", false)), "a\uFFFD\uFFFD");
  // Half a character of one segment is not completed by the next.
  const std::vector<TextSegment> halves = {{"\xC3", false}, {"\xA9", true}};
  EXPECT_EQ(tokenizer.Decode(tokenizer.EncodeSegments(halves)), "\uFFFD\uFFFD");
}

TEST(Tokenizer, LoadNamesTheFile) {
  const auto missing = Tokenizer::Load("/nonexistent/dir");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.status().message().find("/nonexistent/dir"), std::string::npos);
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.Feed(265), "");  // two bytes of three
  EXPECT_EQ(decoder.Feed(0xA0), "\xE4\xBD\xA0");
  EXPECT_EQ(decoder.Feed(0xF0), "");
  EXPECT_EQ(decoder.Feed('a'), "\uFFFDa");
  EXPECT_EQ(decoder.Feed(0xC3), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(StreamDecoder, AgreesWithOneShotForEveryCut) {
  const Tokenizer tokenizer = testing_tokenizer::Make();
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) {
      bytes += "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xED\xF4\x90"[random() % 13];
    }
    const std::string whole = utf8::ReplaceInvalid(bytes);
    for (size_t cut = 0; cut <= bytes.size(); ++cut) {
      StreamDecoder decoder(tokenizer);
      std::string text = decoder.FeedBytes(bytes.substr(0, cut));
      EXPECT_TRUE(utf8::IsValid(text));
      text += decoder.FeedBytes(bytes.substr(cut));
      text += decoder.Finish();
      ASSERT_EQ(text, whole);
    }
  }
}

TEST(DemoTokenizer, RoundTripsAnyValidText) {
  const std::string path = SEACLIFF_SOURCE_DIR "/models/tiny";
  if (!std::filesystem::exists(path + "/tokenizer.json")) GTEST_SKIP() << "no demo model";
  const auto loaded = Tokenizer::Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const Tokenizer& tokenizer = *loaded;
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_TRUE(tokenizer.bos_id().has_value());
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    const int count = static_cast<int>(random() % 40);
    for (int i = 0; i < count; ++i) {
      uint32_t code_point = random() % 3 == 0 ? random() % 0x110000 : random() % 0x500;
      if (code_point >= 0xD800 && code_point < 0xE000) code_point = ' ';
      utf8::AppendCodePoint(code_point, &text);
    }
    for (const bool special : {false, true}) {
      ASSERT_EQ(tokenizer.Decode(tokenizer.Encode(text, special)), text);
    }
  }
}

}  // namespace
}  // namespace seacliff
