// Sampling against its definition in sample/op.h, by hand and by counting draws.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "kernels/sample/op.h"

namespace seacliff {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SamplingTest : public testing::Test {
 protected:
  int32_t Id(const std::vector<float>& logits) {
    row_.logits = logits;
    const Status status = Run();
    EXPECT_TRUE(status.ok()) << status.message();
    return token_.id;
  }

  Status Run() {
    row_.scratch = &scratch_;
    row_.token = &token_;
    Sample(context_, {{&row_, 1}});
    EXPECT_TRUE(context_.ok());
    return row_.error;
  }

  // How often each id is drawn.
  std::vector<double> Frequencies(const std::vector<float>& logits, int draws = 20000) {
    std::vector<double> frequencies(logits.size(), 0);
    for (int i = 0; i < draws; ++i) {
      row_.index = static_cast<uint64_t>(i);
      frequencies[static_cast<size_t>(Id(logits))] += 1.0 / draws;
    }
    return frequencies;
  }

  Context context_{1};
  SampleRow row_;
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
  row_.temperature = 0;
  EXPECT_EQ(Id({0, 3, 1, 3}), 1);
  EXPECT_EQ(Id({-kInfinity, -5, -kInfinity, -4}), 3);
}

TEST_F(SamplingTest, TemperatureGivesTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f), -kInfinity};
  ExpectNear(Frequencies(logits), {0.125, 0.25, 0.625, 0});
  row_.temperature = 0.5f;
  ExpectNear(Frequencies(logits), {1.0 / 30, 4.0 / 30, 25.0 / 30, 0});
  row_.temperature = 1e-30f;
  ExpectNear(Frequencies(logits), {0, 0, 1, 0});
}

TEST_F(SamplingTest, TopKKeepsTheLowestIdsOnTies) {
  row_.top_k = 2;
  ExpectNear(Frequencies({1, 2, 2, 2}), {0, 0.5, 0.5, 0});
  row_.top_k = 1;
  ExpectNear(Frequencies({1, 2, 2, 2}), {0, 1, 0, 0});
  row_.top_k = 100;
  ExpectNear(Frequencies({1, 1}), {0.5, 0.5});
  row_.top_k = -1;
  ExpectNear(Frequencies({1, 1}), {0.5, 0.5});
}

TEST_F(SamplingTest, TopPKeepsTheShortestPrefixThatReachesIt) {
  // Probabilities .1 .4 .2 .3
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(2.0f),
                                     std::log(3.0f)};
  row_.top_p = 0.65f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
  row_.top_p = 0.75f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 9, 2.0 / 9, 3.0 / 9});
  row_.top_p = 1e-6f;
  ExpectNear(Frequencies(logits), {0, 1, 0, 0});
  // top_p is of what top_k left: .4 of .9 is not enough for .5, .7 is.
  row_.top_k = 3;
  row_.top_p = 0.5f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
}

TEST_F(SamplingTest, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(2.0f),
                                     std::log(3.0f)};
  row_.min_p = 0.6f;
  ExpectNear(Frequencies(logits), {0, 4.0 / 7, 0, 3.0 / 7});
  row_.min_p = 1;
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
    row_.top_p = std::uniform_real_distribution<float>(0.01f, 0.999f)(random);

    std::vector<size_t> order(vocab);
    for (size_t i = 0; i < vocab; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double sum = 0, running = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::set<int32_t> kept;
    for (const size_t i : order) {
      // A token on the very edge may fall either way in f32.
      if (running > (static_cast<double>(row_.top_p) + 1e-5) * sum) break;
      kept.insert(static_cast<int32_t>(i));
      running += std::exp(static_cast<double>(logits[i]));
    }
    for (uint64_t index = 0; index < 50; ++index) {
      row_.index = index;
      ASSERT_TRUE(kept.contains(Id(logits)));
    }
  }
}

TEST_F(SamplingTest, SeedAndIndexAreAllThatADrawDependsOn) {
  const std::vector<float> logits(1000, 0.0f), other(1000, 1.0f);
  row_.seed = 42;
  std::vector<int32_t> first, second;
  for (uint64_t i = 0; i < 50; ++i) {
    row_.index = i;
    first.push_back(Id(logits));
  }
  for (uint64_t i = 50; i-- > 0;) {  // in another order, with other draws between
    row_.index = i;
    second.insert(second.begin(), Id(logits));
    row_.seed = 43;
    Id(other);
    row_.seed = 42;
  }
  EXPECT_EQ(first, second);
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 40u);
}

TEST_F(SamplingTest, PenaltiesFollowTheirFormulas) {
  row_.temperature = 0;
  const std::vector<TokenCount> counts = {{0, 0}, {1, 1}, {2, 2}, {3, 0}};
  row_.counts = counts;
  row_.repetition_penalty = 2;  // prompt and output: 0 1 2 3, not 4
  EXPECT_EQ(Id({8, 8, 8, 8, 4.1f}), 4);
  EXPECT_EQ(Id({8, 8, 8, 8.5f, 4.1f}), 3);
  EXPECT_EQ(Id({-2, -9, -9, -9, -3.9f}), 4);  // negative logits are multiplied
  row_.repetition_penalty = 1;
  row_.presence_penalty = 1;  // output only: 1 2
  EXPECT_EQ(Id({5, 5.9f, 5.9f, 5, 0}), 0);
  EXPECT_EQ(Id({5, 6.1f, 6, 5, 0}), 1);
  row_.presence_penalty = 0;
  row_.frequency_penalty = 1;
  EXPECT_EQ(Id({5, 6.5f, 6.9f, 0, 0}), 1);  // 5, 5.5, 4.9
  EXPECT_EQ(Id({5, 6.5f, 7.6f, 0, 0}), 2);  // 5, 5.5, 5.6
}

TEST_F(SamplingTest, BiasAndBannedIds) {
  row_.temperature = 0;
  const std::vector<std::pair<int32_t, float>> bias = {{0, 10.0f}, {2, -100.0f}};
  row_.bias = bias;
  EXPECT_EQ(Id({0, 5, 50}), 0);
  const std::vector<int32_t> banned = {0};
  row_.banned = banned;
  EXPECT_EQ(Id({0, 5, 50}), 1);
  row_.temperature = 1;
  ExpectNear(Frequencies({0, 5, 50}), {0, 1, 0});
}

TEST_F(SamplingTest, MasksLeaveTheirIdsAlone) {
  std::vector<float> logits(70, 0);
  logits[3] = 5;
  logits[69] = 1;
  std::vector<uint32_t> mask = {1u << 31, 1u << 0, 1u << 5 | ~0u << 6};  // 31, 32, 69, and none
  row_.allowed = mask;
  row_.temperature = 0;
  EXPECT_EQ(Id(logits), 69);
  row_.temperature = 1;
  const double e = std::exp(1.0);
  std::vector<double> expected(70, 0);
  expected[31] = expected[32] = 1 / (2 + e);
  expected[69] = e / (2 + e);
  ExpectNear(Frequencies(logits), expected);

  // After everything that could bring an id back, and before everything that chooses.
  const std::vector<std::pair<int32_t, float>> bias = {{3, 100.0f}, {31, 2.0f}};
  row_.bias = bias;
  row_.top_k = 1;
  EXPECT_EQ(Id(logits), 31);
  row_.top_logprobs = 1;  // of all ids, as ever
  EXPECT_EQ(Id(logits), 31);
  EXPECT_EQ(token_.top[0].id, 3);
  EXPECT_NEAR(token_.logprob, -std::log(std::exp(5.0) + e + 68), 1e-5);

  const std::vector<int32_t> banned = {31, 32, 69};
  row_.banned = banned;
  const Status none = Run();
  EXPECT_NE(none.message().find("leave no token to choose"), std::string::npos) << none.message();
  row_.banned = {};
  mask = {0, 0, ~0u << 6};
  EXPECT_FALSE(Run().ok());
}

TEST_F(SamplingTest, LogprobsAreOfTheRawDistribution) {
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(4.0f),
                                     std::log(1.0f)};
  const std::vector<std::pair<int32_t, float>> bias = {{3, 50.0f}};
  row_.bias = bias;
  row_.temperature = 0.1f;
  row_.top_logprobs = 3;
  EXPECT_EQ(Id(logits), 3);
  EXPECT_NEAR(token_.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(token_.top.size(), 3u);
  EXPECT_EQ(token_.top[0].id, 1);  // ties: the lower id first
  EXPECT_EQ(token_.top[1].id, 2);
  EXPECT_EQ(token_.top[2].id, 0);
  EXPECT_NEAR(token_.top[0].logprob, std::log(0.4), 1e-6);
  row_.top_logprobs = 0;
  Id(logits);
  EXPECT_TRUE(token_.top.empty());
  EXPECT_NEAR(token_.logprob, std::log(0.1), 1e-6);
  row_.top_logprobs = 100;
  Id(logits);
  EXPECT_EQ(token_.top.size(), 4u);
}

TEST_F(SamplingTest, UnusableLogitsAreErrors) {
  const std::vector<std::vector<float>> rows = {
      {0, NAN, 1}, {0, kInfinity}, {-kInfinity, -kInfinity}, {NAN}};
  for (const float temperature : {0.0f, 1.0f}) {
    for (const std::vector<float>& row : rows) {
      row_.temperature = temperature;
      row_.logits = row;
      EXPECT_FALSE(Run().ok());
    }
  }
  const std::vector<float> row = {1, 2};
  const std::vector<int32_t> banned = {0, 1};
  row_.logits = row;
  row_.banned = banned;
  EXPECT_FALSE(Run().ok());
}

TEST_F(SamplingTest, AnErrorIsOfItsRowAlone) {
  const std::vector<float> good = {1, 3, 2}, bad = {1, NAN, 2};
  std::vector<SampleScratch> scratch(5);
  std::vector<Token> tokens(5);
  std::vector<SampleRow> rows(5);
  Context context(3);
  for (int round = 0; round < 2; ++round) {  // an error does not outlive its call
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].logits = static_cast<int>(i % 2) == round ? good : bad;
      rows[i].temperature = 0;
      rows[i].scratch = &scratch[i];
      rows[i].token = &tokens[i];
    }
    Sample(context, {rows});
    EXPECT_TRUE(context.ok());
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool is_good = static_cast<int>(i % 2) == round;
      EXPECT_EQ(rows[i].error.ok(), is_good) << i;
      if (is_good) {
        EXPECT_EQ(tokens[i].id, 1) << i;
      }
    }
  }
  Sample(context, {});
  EXPECT_TRUE(context.ok());
}

}  // namespace
}  // namespace seacliff
