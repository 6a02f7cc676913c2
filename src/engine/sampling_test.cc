// Sampling against its definition in sampling.h, by hand and by counting draws.
#include "engine/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "engine/random.h"

namespace seacliff {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// From the Random123 distribution's known answers.
TEST(RandomTest, PhiloxKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(RandomTest, UniformIsInRangeAndSpread) {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = RandomUniform(3, i, Draw::kToken);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
}

class SamplingTest : public testing::Test {
 protected:
  int32_t Id(const std::vector<float>& logits) {
    args_.logits = logits;
    const Status status = Sample(args_, scratch_, token_);
    EXPECT_TRUE(status.ok()) << status.message();
    return token_.id;
  }

  // How often each id is drawn.
  std::vector<double> Frequencies(const std::vector<float>& logits, int draws = 20000) {
    std::vector<double> frequencies(logits.size(), 0);
    for (int i = 0; i < draws; ++i) {
      args_.index = static_cast<uint64_t>(i);
      frequencies[static_cast<size_t>(Id(logits))] += 1.0 / draws;
    }
    return frequencies;
  }

  SampleArgs args_;
  SampleScratch scratch_;
  Token token_;
};

void ExpectNear(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 0.015) << "id " << i;
    if (expected[i] == 0) {
      EXPECT_EQ(actual[i], 0);
    }
  }
}

TEST_F(SamplingTest, GreedyTakesTheLowestIdOnTies) {
  args_.temperature = 0;
  EXPECT_EQ(Id({0, 3, 1, 3}), 1);
  EXPECT_EQ(Id({-kInfinity, -5, -kInfinity, -4}), 3);
}

TEST_F(SamplingTest, TemperatureGivesTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f), -kInfinity};
  ExpectNear(Frequencies(logits), {0.125, 0.25, 0.625, 0});
  args_.temperature = 0.5f;
  ExpectNear(Frequencies(logits), {1.0 / 30, 4.0 / 30, 25.0 / 30, 0});
  args_.temperature = 1e-30f;
  ExpectNear(Frequencies(logits), {0, 0, 1, 0});
}

TEST_F(SamplingTest, TopKKeepsTheLowestIdsOnTies) {
  args_.top_k = 2;
  ExpectNear(Frequencies({1, 2, 2, 2}), {0, 0.5, 0.5, 0});
  args_.top_k = 1;
  ExpectNear(Frequencies({1, 2, 2, 2}), {0, 1, 0, 0});
  args_.top_k = 100;
  ExpectNear(Frequencies({1, 1}), {0.5, 0.5});
  args_.top_k = -1;
  ExpectNear(Frequencies({1, 1}), {0.5, 0.5});
}

TEST_F(SamplingTest, TopPKeepsTheShortestPrefixThatReachesIt) {
  // Probabilities .1 .4 .2 .3
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(2.0f),
                                     std::log(3.0f)};
  args_.top_p = 0.65f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
  args_.top_p = 0.75f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 9, 2.0 / 9, 3.0 / 9});
  args_.top_p = 1e-6f;
  ExpectNear(Frequencies(logits), {0, 1, 0, 0});
  // top_p is of what top_k left: .4 of .9 is not enough for .5, .7 is.
  args_.top_k = 3;
  args_.top_p = 0.5f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
}

TEST_F(SamplingTest, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(2.0f),
                                     std::log(3.0f)};
  args_.min_p = 0.6f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
  args_.min_p = 1;
  ExpectNear(Frequencies(logits), {0, 1, 0, 0});
}

// The quick cut before sorting must not change the prefix: against a plain full sort.
TEST_F(SamplingTest, TopPEqualsAFullSort) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    const size_t vocab = 50 + random() % 500;
    std::vector<float> logits(vocab);
    std::normal_distribution<float> normal(0, 1 + static_cast<float>(round % 5));
    for (float& logit : logits) logit = normal(random);
    args_.top_p = std::uniform_real_distribution<float>(0.01f, 0.999f)(random);

    std::vector<size_t> order(vocab);
    for (size_t i = 0; i < vocab; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double sum = 0, running = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::set<int32_t> kept;
    for (const size_t i : order) {
      // A token on the very edge may fall either way in f32.
      if (running > (static_cast<double>(args_.top_p) + 1e-5) * sum) break;
      kept.insert(static_cast<int32_t>(i));
      running += std::exp(static_cast<double>(logits[i]));
    }
    for (uint64_t index = 0; index < 50; ++index) {
      args_.index = index;
      ASSERT_TRUE(kept.contains(Id(logits)));
    }
  }
}

TEST_F(SamplingTest, SeedAndIndexAreAllThatADrawDependsOn) {
  const std::vector<float> logits(1000, 0.0f), other(1000, 1.0f);
  args_.seed = 42;
  std::vector<int32_t> first, second;
  for (uint64_t i = 0; i < 50; ++i) {
    args_.index = i;
    first.push_back(Id(logits));
  }
  for (uint64_t i = 50; i-- > 0;) {  // in another order, with other draws between
    args_.index = i;
    second.insert(second.begin(), Id(logits));
    args_.seed = 43;
    Id(other);
    args_.seed = 42;
  }
  EXPECT_EQ(first, second);
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 40u);
}

TEST_F(SamplingTest, PenaltiesFollowTheirFormulas) {
  args_.temperature = 0;
  TokenCounts counts(std::vector<int32_t>{0, 0, 3}, 8);
  counts.Add(1);
  counts.Add(2);
  counts.Add(2);
  args_.counts = counts.counts();
  args_.repetition_penalty = 2;  // prompt and output: 0 1 2 3, not 4
  EXPECT_EQ(Id({8, 8, 8, 8, 4.1f}), 4);
  EXPECT_EQ(Id({8, 8, 8, 8.5f, 4.1f}), 3);
  EXPECT_EQ(Id({-2, -9, -9, -9, -3.9f}), 4);  // negative logits are multiplied
  args_.repetition_penalty = 1;
  args_.presence_penalty = 1;  // output only: 1 2
  EXPECT_EQ(Id({5, 5.9f, 5.9f, 5, 0}), 0);
  EXPECT_EQ(Id({5, 6.1f, 6, 5, 0}), 1);
  args_.presence_penalty = 0;
  args_.frequency_penalty = 1;
  EXPECT_EQ(Id({5, 6.5f, 6.9f, 0, 0}), 1);  // 5, 5.5, 4.9
  EXPECT_EQ(Id({5, 6.5f, 7.6f, 0, 0}), 2);  // 5, 5.5, 5.6
}

TEST_F(SamplingTest, BiasAndBannedIds) {
  args_.temperature = 0;
  const std::vector<std::pair<int32_t, float>> bias = {{0, 10.0f}, {2, -100.0f}};
  args_.bias = bias;
  EXPECT_EQ(Id({0, 5, 50}), 0);
  const std::vector<int32_t> banned = {0};
  args_.banned = banned;
  EXPECT_EQ(Id({0, 5, 50}), 1);
  args_.temperature = 1;
  ExpectNear(Frequencies({0, 5, 50}), {0, 1, 0});
}

TEST_F(SamplingTest, LogprobsAreOfTheRawDistribution) {
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(4.0f),
                                     std::log(1.0f)};
  const std::vector<std::pair<int32_t, float>> bias = {{3, 50.0f}};
  args_.bias = bias;
  args_.temperature = 0.1f;
  args_.top_logprobs = 3;
  EXPECT_EQ(Id(logits), 3);
  EXPECT_NEAR(token_.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(token_.top.size(), 3u);
  EXPECT_EQ(token_.top[0].id, 1);  // ties: the lower id first
  EXPECT_EQ(token_.top[1].id, 2);
  EXPECT_EQ(token_.top[2].id, 0);
  EXPECT_NEAR(token_.top[0].logprob, std::log(0.4), 1e-6);
  args_.top_logprobs = 0;
  Id(logits);
  EXPECT_TRUE(token_.top.empty());
  EXPECT_NEAR(token_.logprob, std::log(0.1), 1e-6);
  args_.top_logprobs = 100;
  Id(logits);
  EXPECT_EQ(token_.top.size(), 4u);
}

TEST_F(SamplingTest, UnusableLogitsAreErrors) {
  const std::vector<std::vector<float>> rows = {
      {0, NAN, 1}, {0, kInfinity}, {-kInfinity, -kInfinity}, {NAN}};
  for (const float temperature : {0.0f, 1.0f}) {
    for (const std::vector<float>& row : rows) {
      args_.temperature = temperature;
      args_.logits = row;
      EXPECT_FALSE(Sample(args_, scratch_, token_).ok());
    }
  }
  const std::vector<float> row = {1, 2};
  const std::vector<int32_t> banned = {0, 1};
  args_.logits = row;
  args_.banned = banned;
  EXPECT_FALSE(Sample(args_, scratch_, token_).ok());
}

}  // namespace
}  // namespace seacliff
