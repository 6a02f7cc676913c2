// tokenizer.json files that are wrong: the error names file and field, and nothing crashes.
#include "text/tokenizer_file.h"

#include <gtest/gtest.h>

#include <random>

#include "text/testing_tokenizer.h"

namespace seacliff {
namespace {

const std::vector<std::pair<std::string, std::string>> kMerges = {{"a", "b"}, {"ab", "c"}};

std::string Good() { return testing_tokenizer::Json(kMerges); }

std::string Replaced(const std::string& from, const std::string& to) {
  std::string json = Good();
  const size_t at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return json.replace(at, from.size(), to);
}

void ExpectError(const std::string& json, Code code, const std::string& field) {
  const auto file = ReadTokenizerFile(json, "the/file.json");
  ASSERT_FALSE(file.ok()) << field;
  EXPECT_EQ(file.status().code(), code) << file.status().message();
  EXPECT_TRUE(file.status().message().starts_with("the/file.json: " + field))
      << file.status().message();
}

TEST(TokenizerFile, ReadsBothFormsOfMerges) {
  const auto lists = ReadTokenizerFile(Good(), "f");
  ASSERT_TRUE(lists.ok()) << lists.status().message();
  const auto strings =
      ReadTokenizerFile(Replaced(R"(["a", "b"], ["ab", "c"])", R"("a b", "ab c")"), "f");
  ASSERT_TRUE(strings.ok()) << strings.status().message();
  ASSERT_EQ(strings->merges.size(), 2u);
  EXPECT_EQ(strings->merges[1].left, 256);
  EXPECT_EQ(lists->merges[1].result, strings->merges[1].result);
  EXPECT_EQ(lists->vocab.size(), 258u);
}

TEST(TokenizerFile, RefusesOtherPipelines) {
  ExpectError(Replaced(R"("normalizers": [])", R"("normalizers": [{"type": "NFC"}])"),
              Code::kUnimplemented, "normalizer.normalizers");
  ExpectError(Replaced(R"({"type": "Sequence", "normalizers": []})", R"({"type": "NFC"})"),
              Code::kUnimplemented, "normalizer.type");
  ExpectError(Replaced("{1,3}", "{1,2}"), Code::kUnimplemented,
              "pre_tokenizer.pretokenizers[0].pattern.Regex");
  ExpectError(Replaced(R"("use_regex": false)", R"("use_regex": true)"), Code::kUnimplemented,
              "pre_tokenizer.pretokenizers[3].use_regex");
  ExpectError(Replaced("Isolated", "Removed"), Code::kUnimplemented,
              "pre_tokenizer.pretokenizers[0].behavior");
  ExpectError(Replaced(R"("type": "BPE")", R"("type": "Unigram")"), Code::kUnimplemented,
              "model.type");
  ExpectError(Replaced(R"("unk_token": null)", R"("unk_token": "x")"), Code::kUnimplemented,
              "model.unk_token");
  ExpectError(Replaced(R"("decoder": {"type": "ByteLevel"})", R"("decoder": {"type": "Fuse"})"),
              Code::kUnimplemented, "decoder.type");
  ExpectError(Replaced(R"("normalized": false)", R"("lstrip": true)"), Code::kUnimplemented,
              "added_tokens[0].lstrip");
}

TEST(TokenizerFile, RefusesWhatIsWrong) {
  ExpectError("[]", Code::kInvalidArgument, "must be a JSON object");
  ExpectError("{", Code::kInvalidArgument, "not valid JSON");
  ExpectError("{}", Code::kInvalidArgument, "pre_tokenizer: missing");
  ExpectError(Replaced(R"(["ab", "c"])", R"(["ab", "z"])"), Code::kInvalidArgument,
              "model.merges[1]: \"abz\" is not in model.vocab");
  ExpectError(Replaced(R"(["ab", "c"])", R"(["ab"])"), Code::kInvalidArgument, "model.merges[1]");
  ExpectError(Replaced(R"(["ab", "c"])", R"("abc")"), Code::kInvalidArgument, "model.merges[1]");
  ExpectError(Replaced(R"(["ab", "c"])", "7"), Code::kInvalidArgument, "model.merges[1]");
  ExpectError(Replaced(R"(["ab", "c"])", R"(["a", "b"])"), Code::kInvalidArgument,
              "model.merges[1]: stands there twice");
  ExpectError(Replaced(R"("abc": 257)", R"("abc": 256)"), Code::kInvalidArgument,
              "model.vocab[\"abc\"]: id 256 is taken");
  ExpectError(Replaced(R"("abc": 257)", R"("abc": -1)"), Code::kInvalidArgument,
              "model.vocab[\"abc\"]");
  ExpectError(Replaced(R"("abc": 257)", R"("abc": 99999999999)"), Code::kInvalidArgument,
              "model.vocab[\"abc\"]");
  ExpectError(Replaced(R"("abc": 257)", R"("ab c": 257)"), Code::kInvalidArgument,
              "model.vocab[\"ab c\"]: is not written");
  ExpectError(Replaced(R"("a": 97, )", ""), Code::kInvalidArgument,
              "model.vocab: no token for the byte 0x61");
  ExpectError(Replaced(R"("id": 258)", R"("id": 259)"), Code::kInvalidArgument,
              "added_tokens[1].id");
  ExpectError(Replaced(R"("id": 258)", R"("id": 257)"), Code::kInvalidArgument,
              "model.vocab[\"abc\"]: id 257 contradicts added_tokens");
  ExpectError(Replaced(R"("content": "<think>")", R"("content": "")"), Code::kInvalidArgument,
              "added_tokens[6].content");
  ExpectError(Replaced(R"("content": "<think>")", R"("content": "</think>")"),
              Code::kInvalidArgument, "added_tokens[7].content");
}

TEST(TokenizerFile, DamagedFilesNeverCrash) {
  const std::string good = Good();
  std::mt19937 random(5);
  for (size_t size = 0; size < good.size(); size += 7) {
    EXPECT_FALSE(ReadTokenizerFile(good.substr(0, size), "f").ok());
  }
  for (int round = 0; round < 3000; ++round) {
    std::string json = good;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const size_t at = random() % json.size();
      switch (random() % 3) {
        case 0:
          json[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          json.erase(at, 1 + random() % 20);
          break;
        default:
          json.insert(at, json.substr(random() % json.size(), random() % 30));
      }
    }
    const auto file = ReadTokenizerFile(json, "f");
    if (file.ok()) (void)Tokenizer::FromJson(json, "f")->Encode("abc abcabc", true);
  }
}

}  // namespace
}  // namespace seacliff
