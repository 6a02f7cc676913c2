// The models that the GPU's tests run: the golden and the demo checkpoint, and weights made up at
// the published models' sizes.
#pragma once

#include <string>

#include "model/direct.h"
#include "tests/configs.h"
#include "tests/gpu/gpu.h"

namespace seacliff {

// A folder with only a config.json: two layers of tests/data/configs/NAME.json (with blocks of 4
// and of 128 tokens), few experts and words, so that the weights are made in a second.
inline std::string TwoLayersOf(const std::string& name) {
  return ConfigOnly("two_layers_of_" + name, name, [](nlohmann::json& c) {
    c["num_hidden_layers"] = 2;
    c["compress_ratios"] = {4, 128, 0};
    c["num_hash_layers"] = 1;
    c["n_routed_experts"] = 8;
    c["vocab_size"] = 4096;
  });
}

struct TestModel {
  const char* name;
  const char* checkpoint;  // in the repository; null: weights made up for two layers of `name`
};
inline constexpr TestModel kTestModels[] = {{"tiny-a", "/tests/data/golden/tiny-a"},
                                            {"tiny", "/models/tiny"},
                                            {"cpu-mid", nullptr},
                                            {"flash", nullptr},
                                            {"pro", nullptr}};

// `seqs` sequences of at most `length` tokens.
inline Result<std::unique_ptr<Model>> LoadTestModel(const TestModel& m, const char* device,
                                                    int64_t seqs, int64_t length) {
  ModelOptions options;
  options.dir = m.checkpoint != nullptr ? Repository() + m.checkpoint : TwoLayersOf(m.name);
  options.load_format = m.checkpoint != nullptr ? "auto" : "dummy";
  options.device = device;
  options.max_tokens = length;
  DirectRunner::SizeCache(seqs, length, options);
  return Model::Load(options, {});
}

// Ids of sequence `which` of a test, any but the first few special ones.
inline std::vector<int32_t> SomeIds(const Model& model, int64_t which, int64_t count) {
  std::vector<int32_t> ids;
  const int64_t words = std::min<int64_t>(model.config().vocab_size, 4000) - 300;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(300 + (i * 7919 + which * 1237) % words));
  }
  return ids;
}

}  // namespace seacliff
