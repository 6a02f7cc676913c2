// One way of running a model's layers, one layer at a time: its rows (on the host or on a device),
// its weights, its caches and activations. Two sides that get the same residual streams before each
// layer are compared block by block, so that nothing adds up from layer to layer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cache/store.h"
#include "checkpoint/checkpoint.h"
#include "kernels/common/mhc.h"
#include "kernels/embed/op.h"
#include "model/device_weights.h"
#include "model/forward.h"
#include "model/packing.h"
#include "model/rope.h"
#include "model/scratch.h"
#include "parallel/one_rank.h"

namespace seacliff {

// Tokens [first, first + count) of one sequence whose pages are 0, 1, ...
struct SideStep {
  SideStep(const std::vector<int32_t>& all_ids, int64_t first, int64_t count)
      : ids(all_ids.begin() + first, all_ids.begin() + first + count),
        seq_of(static_cast<size_t>(count), 0),
        begin{0, static_cast<int32_t>(count)},
        rows{static_cast<int32_t>(count - 1)} {
    for (int64_t i = 0; i < count; ++i) positions.push_back(static_cast<int32_t>(first + i));
    for (int64_t p = 0; p * kPageTokens < static_cast<int64_t>(all_ids.size()); ++p) {
      pages.push_back(static_cast<int32_t>(p));
    }
  }
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }

  std::vector<int32_t> ids, positions, seq_of, begin, slots{0}, pages, rows;
};

class Side {
 public:
  enum class Runs { kReference, kCpu, kDevice };

  // `device` is null but for kDevice. For sequences of at most `tokens`. `quantise_o`: the output
  // projection's FP8 form.
  Side(const std::string& dir, const ModelConfig& config, Runs runs, int64_t tokens,
       Device* device = nullptr, bool quantise_o = false)
      : config_(config),
        device_(device),
        checkpoint_(Checkpoint::Open(dir, config, false).value()),
        k_(2),
        frequencies_{RopeFrequencies(config, 0), RopeFrequencies(config, 4)},
        weights_(BindWeights(checkpoint_, config, frequencies_, quantise_o)),
        scratch_(config, DType::kBf16, tokens, Memory()),
        cache_(config, false, config.layers, Pages(tokens), Pages(tokens), 1, Memory()) {
    if (runs == Runs::kReference) k_.rows() = Rows::Parse(AllRef()).value();
    if (runs == Runs::kCpu) {
      packed_ = PackedWeights::Load(PackableOf(weights_), checkpoint_, "", k_.pool(), {}).value();
    }
    if (runs == Runs::kDevice) {
      k_.set_device(device);
      uploaded_ = DeviceWeights::Upload(weights_, checkpoint_, *device, {}).value();
    }
  }

  void Start(const SideStep& step) {
    arrays_.clear();
    batch_ = {Array(step.ids),   Array(step.positions), Array(step.seq_of), Array(step.begin),
              Array(step.slots), Table(step.pages),     Table(step.pages),  Array(step.rows)};
    s_ = scratch_.For(step.tokens());
    Embed(k_, {batch_.ids, weights_.embed, s_.streams});
  }
  // What the next layer reads, from a side on the host.
  void Copy(const Side& other) {
    Put(s_.streams.data, other.s_.streams.data, Bytes(s_.streams.size()));
    Put(s_.y.data, other.s_.y.data, Bytes(s_.y.size()));
    Put(s_.mix.data, other.s_.mix.data, s_.mix.size() * static_cast<int64_t>(sizeof(float)));
  }
  void Layer(int64_t i) {
    Block(k_, comm_, config_, weights_.layers[static_cast<size_t>(i)], batch_, cache_.layer(i),
          i == 0, s_);
    const Status status = k_.TakeError();
    ASSERT_TRUE(status.ok()) << status.message();
    if (device_ == nullptr) return;
    const Status on_device = device_->Synchronize();
    ASSERT_TRUE(on_device.ok()) << on_device.message();
  }
  // The streams of every token after the layer, its output taken in.
  std::vector<float> Streams() const {
    std::vector<Bf16> streams(static_cast<size_t>(s_.streams.size()));
    std::vector<Bf16> y(static_cast<size_t>(s_.y.size()));
    std::vector<float> mix(static_cast<size_t>(s_.mix.size()));
    Get(streams.data(), s_.streams.data, Bytes(s_.streams.size()));
    Get(y.data(), s_.y.data, Bytes(s_.y.size()));
    Get(mix.data(), s_.mix.data, s_.mix.size() * static_cast<int64_t>(sizeof(float)));
    const Act<3> copy(streams.data(), DType::kBf16, s_.streams.shape);
    const Act<2> output(y.data(), DType::kBf16, s_.y.shape);
    const View<const float, 2> weights(mix.data(), s_.mix.shape);
    for (int64_t t = 0; t < s_.y.shape[0]; ++t) MhcPost(output, copy, weights, t);
    std::vector<float> values(streams.size());
    for (size_t i = 0; i < streams.size(); ++i) values[i] = ToFloat(streams[i]);
    return values;
  }

 private:
  static std::string AllRef() {
    std::string rows;
    for (const char* op :
         {"embed", "mhc_boundary", "mhc_head", "rms_norm", "linear", "grouped_linear", "query_rope",
          "window_insert", "compress", "index_query", "index_topk", "sparse_attention", "router",
          "experts", "mtp_join", "sample"}) {
      rows += std::string(rows.empty() ? "" : ",") + op + "=ref";
    }
    return rows;
  }
  static int64_t Bytes(int64_t values) { return values * static_cast<int64_t>(sizeof(Bf16)); }
  static int64_t Pages(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

  Allocate Memory() const {
    if (device_ == nullptr) return Buffer::Host;
    return [device = device_](int64_t bytes) { return device->Allocate(bytes); };
  }
  void Put(void* to, const void* host, int64_t bytes) {
    if (device_ != nullptr) return device_->Upload(to, host, bytes);
    std::memcpy(to, host, static_cast<size_t>(bytes));
  }
  void Get(void* host, const void* from, int64_t bytes) const {
    if (device_ != nullptr) return device_->Download(host, from, bytes);
    std::memcpy(host, from, static_cast<size_t>(bytes));
  }
  View<const int32_t, 1> Array(const std::vector<int32_t>& values) {
    const auto count = static_cast<int64_t>(values.size());
    arrays_.push_back(Memory()(count * static_cast<int64_t>(sizeof(int32_t))));
    Put(arrays_.back().data(), values.data(), count * static_cast<int64_t>(sizeof(int32_t)));
    return arrays_.back().As<const int32_t, 1>({count});
  }
  View<const int32_t, 2> Table(const std::vector<int32_t>& pages) {
    const View<const int32_t, 1> row = Array(pages);
    return {row.data, {1, row.shape[0]}};
  }

  const ModelConfig& config_;
  Device* device_;
  Checkpoint checkpoint_;
  Context k_;
  OneRank comm_;
  std::vector<float> frequencies_[2];
  ModelWeights weights_;
  PackedWeights packed_;
  DeviceWeights uploaded_;
  Scratch scratch_;
  CacheStore cache_;
  std::vector<Buffer> arrays_;  // batch_'s
  Batch batch_;
  Activations s_;
};

// How far one side's streams stand from another's, token by token.
class SideDistance {
 public:
  // Both [tokens, width].
  void Add(const std::vector<float>& want, const std::vector<float>& got, int64_t width) {
    for (size_t begin = 0; begin < want.size(); begin += static_cast<size_t>(width)) {
      double difference = 0, norm = 0;
      for (size_t i = begin; i < begin + static_cast<size_t>(width); ++i) {
        difference += std::pow(static_cast<double>(want[i]) - got[i], 2);
        norm += std::pow(static_cast<double>(want[i]), 2);
      }
      difference_ += difference;
      norm_ += norm;
      tokens_.push_back(std::sqrt(difference / norm));
    }
  }

  // Relative to the norm of all tokens.
  double Whole() const { return std::sqrt(difference_ / norm_); }
  double Median() const {
    std::vector<double> sorted = tokens_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
  double Worst() const { return *std::max_element(tokens_.begin(), tokens_.end()); }

 private:
  double difference_ = 0, norm_ = 0;
  std::vector<double> tokens_;
};

// Every layer over one sequence, in steps of `steps` tokens: `other` gets the streams of `ref`
// before each. Tokens from `from` on count: for each layer all of them within 5e-2, the median
// token within 3e-2.
inline void CompareBlocks(const ModelConfig& config, Side& ref, Side& other,
                          const std::vector<int64_t>& steps, int64_t from, const char* what) {
  int64_t total = 0;
  for (const int64_t count : steps) total += count;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < total; ++i) {
    ids.push_back(static_cast<int32_t>(i * 7919 % config.vocab_size));
  }
  std::vector<SideDistance> layers(static_cast<size_t>(config.layers));
  const int64_t width = config.streams * config.dim;
  int64_t first = 0;
  for (const int64_t count : steps) {
    const SideStep step(ids, first, count);
    ref.Start(step);
    other.Start(step);
    for (int64_t i = 0; i < config.layers; ++i) {
      if (i > 0) other.Copy(ref);
      ASSERT_NO_FATAL_FAILURE(ref.Layer(i));
      ASSERT_NO_FATAL_FAILURE(other.Layer(i));
      if (first >= from) layers[static_cast<size_t>(i)].Add(ref.Streams(), other.Streams(), width);
    }
    first += count;
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const SideDistance& d = layers[i];
    EXPECT_LE(d.Whole(), 5e-2) << what << ", layer " << i;
    EXPECT_LE(d.Median(), 3e-2) << what << ", layer " << i;
    std::printf("%s, layer %zu: %.4f of the whole, median token %.4f, worst %.4f\n", what, i,
                d.Whole(), d.Median(), d.Worst());
  }
}

}  // namespace seacliff
