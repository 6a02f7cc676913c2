// What a sequence's logits may depend on: of a decoded token on nothing else in the step, down to
// the last bit; of a prompt on how it was cut only as far as rounding goes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/gpu/models.h"

namespace seacliff {
namespace {

constexpr int64_t kMaxLen = 768;

class Company : public GpuTest, public testing::WithParamInterface<TestModel> {
 protected:
  std::unique_ptr<Model> Load(const char* device, int64_t seqs) {
    auto model = LoadTestModel(GetParam(), device, seqs, kMaxLen);
    EXPECT_TRUE(model.ok()) << model.status().message();
    return model.ok() ? std::move(model).value() : nullptr;
  }
};
std::string NameOf(const testing::TestParamInfo<TestModel>& tested) {
  std::string name = tested.param.name;
  std::erase(name, '-');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, Company, testing::ValuesIn(kTestModels), NameOf);

// Beside more than these the other prompts are short.
constexpr int64_t kCrowded = 31;

// The logits of one sequence over decode steps beside `others` more. All prompts are read one by
// one; `place` is where among the sequences of a step the one stands that is looked at.
std::vector<float> DecodeBeside(Model& model, int64_t others, int64_t place) {
  constexpr int64_t kLengths[] = {1, 700, 127, 33, 256, 5, 129, 512, 64, 2, 380};
  constexpr int64_t kPrompt = 300, kSteps = 6;
  DirectRunner runner(model, others + 1, kMaxLen);
  std::vector<std::vector<int32_t>> ids;
  std::vector<float> logits;
  for (int64_t s = 0; s <= others; ++s) {
    const int64_t other = s < place ? s : s - 1;
    const int64_t length = s == place          ? kPrompt
                           : others > kCrowded ? 1 + other % 9
                                               : kLengths[other % std::ssize(kLengths)];
    ids.push_back(SomeIds(model, s == place ? 0 : other + 1, length + kSteps));
    const DirectRunner::Piece prompt{s, {ids.back().data(), static_cast<size_t>(length)}};
    EXPECT_TRUE(runner.Step({&prompt, 1}, {}, logits).ok());
  }
  std::vector<float> all;
  const int64_t vocab = model.config().vocab_size;
  for (int64_t step = 0; step < kSteps; ++step) {
    std::vector<DirectRunner::Piece> pieces;
    std::vector<int32_t> rows;
    for (int64_t s = 0; s <= others; ++s) {
      const std::vector<int32_t>& mine = ids[static_cast<size_t>(s)];
      pieces.push_back({s, {mine.data() + mine.size() - kSteps + step, 1}});
      rows.push_back(static_cast<int32_t>(s));
    }
    const Status status = runner.Step(pieces, rows, logits);
    EXPECT_TRUE(status.ok()) << status.message();
    all.insert(all.end(), logits.begin() + place * vocab, logits.begin() + (place + 1) * vocab);
  }
  return all;
}

TEST_P(Company, DecodeIsBitIdentical) {
  const auto model = Load("cuda", 601);
  ASSERT_NE(model, nullptr);
  const std::vector<float> alone = DecodeBeside(*model, 0, 0);
  for (const float v : alone) ASSERT_TRUE(std::isfinite(v));
  std::vector<int64_t> companies = {1, 3, 7, 10, 31, 63};
  // experts' kernel for few tokens takes as many as a block's shared memory has room for.
  if (device().gpu().shared_memory >= 200 * 1024) companies.insert(companies.end(), {96, 130});
  for (const int64_t others : companies) {
    for (const int64_t place : {int64_t{0}, others / 2, others}) {
      if (others > kCrowded && place != others / 2) continue;
      const std::vector<float> together = DecodeBeside(*model, others, place);
      ASSERT_EQ(together.size(), alone.size());
      const auto [a, b] =
          std::mismatch(alone.begin(), alone.end(), together.begin(),
                        [](float x, float y) { return std::memcmp(&x, &y, sizeof(float)) == 0; });
      EXPECT_TRUE(a == alone.end())
          << "beside " << others << " others, at place " << place << ": logit "
          << (a - alone.begin()) % model->config().vocab_size << " of step "
          << (a - alone.begin()) / model->config().vocab_size << " is " << *b << ", alone " << *a;
    }
  }
}

// Logits of every token of a sequence that is read in pieces of the given lengths. With `company`
// each step also brings 50 tokens of another prompt and one decoded token of a third sequence.
std::vector<float> LogitsOf(Model& model, const std::vector<int32_t>& ids,
                            const std::vector<int64_t>& lengths, bool company) {
  DirectRunner runner(model, company ? 3 : 1, kMaxLen);
  const std::vector<int32_t> chunks = SomeIds(model, 1, kMaxLen), tokens = SomeIds(model, 2, 200);
  std::vector<float> logits, all;
  int64_t begin = 0, chunked = 0, decoded = 100;
  if (company) {
    const DirectRunner::Piece prompt{2, {tokens.data(), 100}};
    EXPECT_TRUE(runner.Step({&prompt, 1}, {}, logits).ok());
  }
  for (const int64_t length : lengths) {
    std::vector<DirectRunner::Piece> pieces;
    int32_t first = 0;
    if (company && chunked + 50 <= kMaxLen) {
      pieces.push_back({1, {chunks.data() + chunked, 50}});
      chunked += 50;
      first = 50;
    }
    pieces.push_back({0, {ids.data() + begin, static_cast<size_t>(length)}});
    if (company) pieces.push_back({2, {tokens.data() + decoded++, 1}});
    std::vector<int32_t> rows;
    for (int32_t i = 0; i < length; ++i) rows.push_back(first + i);
    const Status status = runner.Step(pieces, rows, logits);
    EXPECT_TRUE(status.ok()) << status.message();
    all.insert(all.end(), logits.begin(), logits.end());
    begin += length;
  }
  return all;
}

// Each layer may add what a block may (tests/golden/side.h): 3e-2 of the median token.
TEST_P(Company, PrefillChunksDecodeAndMixedStepsFollowTheCpu) {
  constexpr int64_t kTokens = 330;
  const auto cpu = Load("cpu", 1), gpu = Load("cuda", 3);
  ASSERT_TRUE(cpu != nullptr && gpu != nullptr);
  const std::vector<int32_t> ids = SomeIds(*cpu, 0, kTokens);
  const std::vector<float> want = LogitsOf(*cpu, ids, {kTokens}, false);
  const auto vocab = static_cast<size_t>(cpu->config().vocab_size);
  const double bar = 3e-2 * static_cast<double>(cpu->config().layers);
  std::vector<int64_t> decode(31, 1);
  decode.front() = 300;
  struct Way {
    const char* name;
    std::vector<int64_t> lengths;
    bool company;
  };
  for (const Way& way : {Way{"prefill", {kTokens}, false},
                         {"chunks", {1, 3, 60, 64, 129, 73}, false},
                         {"decode", decode, false},
                         {"mixed", {5, 130, 1, 1, 1, 63, 127, 1, 1}, true}}) {
    const std::vector<float> got = LogitsOf(*gpu, ids, way.lengths, way.company);
    ASSERT_EQ(got.size(), want.size());
    std::vector<double> errors;
    int64_t same = 0;
    for (size_t t = 0; t < static_cast<size_t>(kTokens); ++t) {
      const float *a = want.data() + t * vocab, *b = got.data() + t * vocab;
      double difference = 0, norm = 0;
      for (size_t i = 0; i < vocab; ++i) {
        difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
        norm += std::pow(static_cast<double>(a[i]), 2);
      }
      errors.push_back(std::sqrt(difference / norm));
      same += std::max_element(a, a + vocab) - a == std::max_element(b, b + vocab) - b;
    }
    std::sort(errors.begin(), errors.end());
    const double median = errors[errors.size() / 2];
    EXPECT_LE(median, bar) << way.name;
    std::printf(
        "%s, %s: logits differ by %.4f (median token; bar %.2f), worst %.4f, same likeliest "
        "token %.1f %%\n",
        GetParam().name, way.name, median, bar, errors.back(),
        100.0 * static_cast<double>(same) / kTokens);
  }
}

}  // namespace
}  // namespace seacliff
