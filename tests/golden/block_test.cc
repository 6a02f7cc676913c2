// Block by block, the cpu rows against the reference rows on the golden checkpoint: each layer gets
// the reference's residual streams, so that nothing adds up from layer to layer.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cache/store.h"
#include "checkpoint/checkpoint.h"
#include "kernels/common/mhc.h"
#include "kernels/embed/op.h"
#include "model/forward.h"
#include "model/packing.h"
#include "model/rope.h"
#include "model/scratch.h"

namespace seacliff {
namespace {

constexpr int64_t kTokens = 300, kPages = (kTokens + kPageTokens - 1) / kPageTokens;

std::string AllRef() {
  std::string rows;
  for (const char* op : {"embed", "mhc_boundary", "mhc_head", "rms_norm", "linear",
                         "grouped_linear", "query_rope", "window_insert", "compress", "index_query",
                         "index_topk", "sparse_attention", "router", "experts", "sample"}) {
    rows += std::string(rows.empty() ? "" : ",") + op + "=ref";
  }
  return rows;
}

// One way of running the layers: its rows, its weights, its caches and activations.
class Side {
 public:
  Side(const ModelConfig& config, bool reference)
      : config_(config),
        checkpoint_(Checkpoint::Open(SEACLIFF_SOURCE_DIR "/tests/data/golden/tiny-a", config, false)
                        .value()),
        k_(2),
        frequencies_{RopeFrequencies(config, 0), RopeFrequencies(config, 4)},
        weights_(BindWeights(checkpoint_, config, frequencies_)),
        scratch_(config, DType::kBf16, kTokens, Buffer::Host),
        cache_(config, false, config.layers, kPages, kPages, 1),
        s_(scratch_.For(kTokens)) {
    if (reference) {
      k_.rows() = Rows::Parse(AllRef()).value();
    } else {
      packed_ = PackedWeights::Load(PackableOf(weights_), checkpoint_, "", k_.pool(), {}).value();
    }
  }

  void Start(const Batch& b) { Embed(k_, {b.ids, weights_.embed, s_.streams}); }
  void Copy(const Side& other) {
    std::memcpy(s_.streams.data, other.s_.streams.data, Bytes(s_.streams.size()));
    std::memcpy(s_.y.data, other.s_.y.data, Bytes(s_.y.size()));
    std::memcpy(s_.mix.data, other.s_.mix.data, static_cast<size_t>(s_.mix.size()) * sizeof(float));
  }
  void Layer(const Batch& b, int64_t i) {
    Block(k_, config_, weights_.layers[static_cast<size_t>(i)], b, cache_.layer(i), i == 0, s_);
    ASSERT_TRUE(k_.ok());
  }
  // The streams of every token after the layer, its output taken in.
  std::vector<float> Streams() const {
    std::vector<Bf16> copy(static_cast<size_t>(s_.streams.size()));
    std::memcpy(copy.data(), s_.streams.data, Bytes(s_.streams.size()));
    const Act<3> streams(copy.data(), DType::kBf16, s_.streams.shape);
    for (int64_t t = 0; t < kTokens; ++t) MhcPost(s_.y, streams, s_.mix, t);
    std::vector<float> values(copy.size());
    for (size_t i = 0; i < copy.size(); ++i) values[i] = ToFloat(copy[i]);
    return values;
  }

 private:
  static size_t Bytes(int64_t values) { return static_cast<size_t>(values) * sizeof(Bf16); }

  const ModelConfig& config_;
  Checkpoint checkpoint_;
  Context k_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PackedWeights packed_;
  Scratch scratch_;
  CacheStore cache_;
  Activations s_;
};

double Distance(const float* a, const float* b, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += a[i] * a[i];
  }
  return std::sqrt(difference / norm);
}

TEST(Blocks, CpuRowsFollowTheReference) {
  const ModelConfig config =
      LoadModelConfig(SEACLIFF_SOURCE_DIR "/tests/data/golden/tiny-a").value();
  std::vector<int32_t> ids, positions, seq_of(kTokens, 0), pages;
  for (int32_t i = 0; i < kTokens; ++i) {
    ids.push_back(i * 7919 % static_cast<int32_t>(config.vocab_size));
    positions.push_back(i);
  }
  for (int32_t p = 0; p < kPages; ++p) pages.push_back(p);
  const std::vector<int32_t> begin = {0, kTokens}, slots = {0}, rows = {kTokens - 1};
  const Batch batch{{ids.data(), {kTokens}},     {positions.data(), {kTokens}},
                    {seq_of.data(), {kTokens}},  {begin.data(), {2}},
                    {slots.data(), {1}},         {pages.data(), {1, kPages}},
                    {pages.data(), {1, kPages}}, {rows.data(), {1}}};
  Side ref(config, true), cpu(config, false);
  ref.Start(batch);
  cpu.Start(batch);
  const int64_t width = config.streams * config.dim;
  for (int64_t i = 0; i < config.layers; ++i) {
    if (i > 0) cpu.Copy(ref);
    ref.Layer(batch, i);
    cpu.Layer(batch, i);
    const std::vector<float> want = ref.Streams(), got = cpu.Streams();
    std::vector<double> errors;
    for (int64_t t = 0; t < kTokens; ++t) {
      errors.push_back(Distance(want.data() + t * width, got.data() + t * width, width));
    }
    std::sort(errors.begin(), errors.end());
    const double whole = Distance(want.data(), got.data(), kTokens * width);
    RecordProperty("layer_" + std::to_string(i), std::to_string(whole));
    EXPECT_LE(whole, 5e-2) << "layer " << i;
    EXPECT_LE(errors[kTokens / 2], 3e-2) << "layer " << i;
    std::printf("layer %d: %.4f of the whole, median token %.4f, worst %.4f\n", static_cast<int>(i),
                whole, errors[kTokens / 2], errors.back());
  }
}

}  // namespace
}  // namespace seacliff
