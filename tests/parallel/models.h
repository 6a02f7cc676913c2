// A small model of every layer kind that four ranks can share, with weights from a seed, and a
// sequence run through it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "model/direct.h"
#include "tests/configs.h"

namespace seacliff {

inline constexpr int64_t kSmallLength = 256;

// A folder with only a config.json: Flash, made small and changed as `change` says.
inline std::string SmallConfig(const std::string& name,
                               const std::function<void(nlohmann::json&)>& change = {}) {
  return ConfigOnly("parallel_" + name, "flash", [&](nlohmann::json& c) {
    c["hidden_size"] = 256;
    c["num_hidden_layers"] = 4;
    c["compress_ratios"] = {0, 4, 128, 4, 0};
    c["num_hash_layers"] = 1;
    c["n_routed_experts"] = 8;
    c["num_experts_per_tok"] = 3;
    c["moe_intermediate_size"] = 512;
    c["num_attention_heads"] = 8;
    c["q_lora_rank"] = 128;
    c["o_groups"] = 4;
    c["o_lora_rank"] = 128;
    c["index_topk"] = 8;
    c["vocab_size"] = 600;
    if (change) change(c);
  });
}

inline ModelOptions SmallOptions(const std::string& dir, int32_t ranks, Numerics numerics) {
  ModelOptions options;
  options.dir = dir;
  options.load_format = "dummy";
  options.numerics = numerics;
  options.seed = 3;
  options.mtp = true;
  options.threads = ranks;
  options.max_tokens = 160;
  options.tensor_parallel_size = ranks;
  DirectRunner::SizeCache(2, kSmallLength, options);
  return options;
}

// Logits of a prefill, of a chunk that follows it beside another sequence, of decoding, and of the
// MTP layer.
inline std::vector<float> RunSmall(Model& model) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 300; ++i) ids.push_back(i * 37 % 600);
  DirectRunner runner(model, 2, kSmallLength);
  std::vector<float> all, logits;
  const auto step = [&](std::vector<DirectRunner::Piece> pieces, std::vector<int32_t> rows) {
    const Status status = runner.Step(pieces, rows, logits);
    ASSERT_TRUE(status.ok()) << status.message();
    all.insert(all.end(), logits.begin(), logits.end());
  };
  step({{0, {ids.data(), 140}}}, {0, 131, 139});
  step({{0, {ids.data() + 140, 60}}, {1, {ids.data() + 7, 20}}}, {59, 79});
  for (size_t i = 0; i < 3; ++i) step({{0, {&ids[200 + i], 1}}, {1, {&ids[27 + i], 1}}}, {0, 1});
  const Status status = runner.StepMtp(std::vector<int32_t>{ids[203], ids[30]}, logits);
  EXPECT_TRUE(status.ok()) << status.message();
  all.insert(all.end(), logits.begin(), logits.end());
  return all;
}

// The distance of `got` from `want`, relative to the norm.
inline double RelativeDistance(const std::vector<float>& want, const std::vector<float>& got) {
  EXPECT_EQ(want.size(), got.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(want[i]) - got[i], 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / norm);
}

}  // namespace seacliff
