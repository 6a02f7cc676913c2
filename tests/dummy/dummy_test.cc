// Weights made up from a seed run at the model's real sizes, without a checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/direct.h"
#include "tests/configs.h"

namespace seacliff {
namespace {

std::vector<float> LastLogits(const std::string& dir, uint64_t seed) {
  ModelOptions options;
  options.dir = dir;
  options.load_format = "dummy";
  options.seed = seed;
  options.max_tokens = 128;
  DirectRunner::SizeCache(1, 256, options);
  auto model = Model::Load(options, {});
  EXPECT_TRUE(model.ok()) << model.status().message();
  DirectRunner runner(**model, 1, 256);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 129; ++i) ids.push_back(1000 + 37 * i);
  std::vector<float> logits;
  const DirectRunner::Piece prefill{0, {ids.data(), 128}}, decode{0, {ids.data() + 128, 1}};
  const int32_t row = 0;
  EXPECT_TRUE(runner.Step({&prefill, 1}, {}, logits).ok());
  EXPECT_TRUE(runner.Step({&decode, 1}, {&row, 1}, logits).ok());
  return logits;
}

void ExpectSane(const std::vector<float>& logits) {
  double square = 0;
  for (const float v : logits) {
    ASSERT_TRUE(std::isfinite(v));
    square += static_cast<double>(v) * v;
  }
  const double rms = std::sqrt(square / static_cast<double>(logits.size()));
  EXPECT_GT(rms, 1e-2);
  EXPECT_LT(rms, 1e2);
}

TEST(DummyWeights, AreAFunctionOfTheSeed) {
  const std::string dir = ConfigOnly("small", "flash", [](nlohmann::json& c) {
    c["hidden_size"] = 256;
    c["num_hidden_layers"] = 3;
    c["compress_ratios"] = {0, 4, 128, 0};
    c["num_hash_layers"] = 1;
    c["n_routed_experts"] = 8;
    c["moe_intermediate_size"] = 128;
    c["num_attention_heads"] = 8;
    c["q_lora_rank"] = 128;
    c["o_groups"] = 2;
    c["o_lora_rank"] = 128;
    c["vocab_size"] = 6000;
  });
  const std::vector<float> logits = LastLogits(dir, 7);
  ExpectSane(logits);
  EXPECT_EQ(logits, LastLogits(dir, 7));
  EXPECT_NE(logits, LastLogits(dir, 8));
}

TEST(DummyWeights, SlowTwoLayersAtFlashSizes) {
  const std::string dir = ConfigOnly("flash2", "flash", [](nlohmann::json& c) {
    c["num_hidden_layers"] = 2;
    c["compress_ratios"] = {4, 128, 0};
    c["num_hash_layers"] = 1;
    c["n_routed_experts"] = 8;
  });
  ExpectSane(LastLogits(dir, 0));
}

}  // namespace
}  // namespace seacliff
