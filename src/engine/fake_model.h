// A model for tests of the engine: its logits are a hash of what it reads back through the page
// tables and the slot, so a wrong page, position or chunk changes the tokens. No weights.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/random.h"
#include "cache/plan.h"
#include "model/model.h"

namespace seacliff {

class FakeModel final : public Model {
 public:
  static constexpr int32_t kVocab = 97;
  static constexpr int64_t kWindow = 128;
  static constexpr int32_t kPoisonId = 95;  // a step that computes it fails
  static constexpr int32_t kNanId = 96;     // its own logits are NaN

  explicit FakeModel(const CacheSize& size) : context_(1) {
    config_.vocab_size = kVocab;
    config_.window = kWindow;
    config_.max_positions = 1 << 20;
    const auto page_tokens = static_cast<size_t>(kPageTokens);
    window_.resize(static_cast<size_t>(size.window_pages) * page_tokens, -1);
    compressed_.resize(static_cast<size_t>(size.compressed_pages) * page_tokens, -1);
    slot_lengths_.resize(static_cast<size_t>(size.slots), 0);
  }

  // The logits after `ids`, by definition.
  static void LogitsOf(std::span<const int32_t> ids, float* logits) {
    const size_t n = ids.size(), window = static_cast<size_t>(kWindow);
    uint64_t hash = HashOf(ids, 1);
    hash ^= HashOf(ids.subspan(n > window ? n - window : 0), 2);
    for (int32_t id = 0; id < kVocab; ++id) {
      const double u = RandomUniform(hash, static_cast<uint64_t>(id), Draw::kToken);
      logits[id] = static_cast<float>(6 * u - 3);
      if (id == kPoisonId || id == kNanId) logits[id] = -200;  // only prompts bring these
      if (ids.back() == kNanId) logits[id] = NAN;
    }
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return context_; }

  Status Forward(const Batch& batch, View<float, 2> logits, const ForwardTrace*) override {
    if (before_step) before_step();
    ++steps;
    largest_batch = std::max<int64_t>(largest_batch, batch.tokens());
    for (int64_t i = 0; i < batch.tokens(); ++i) {
      if (batch.ids(i) == kPoisonId) return Internal("poisoned");
    }
    int64_t row = 0;
    for (int64_t s = 0; s < batch.seqs(); ++s) {
      int64_t& length = slot_lengths_[static_cast<size_t>(batch.slots(s))];
      const int64_t begin = batch.seq_begin(s), end = batch.seq_begin(s + 1);
      EXPECT_LT(begin, end);
      if (batch.positions(begin) == 0) length = 0;  // a new sequence in this slot
      for (int64_t i = begin; i < end; ++i) {
        const int64_t position = batch.positions(i);
        EXPECT_EQ(position, length);
        EXPECT_EQ(batch.seq_of(i), s);
        ++length;
        Entry(window_, batch.window_pages, s, position) = batch.ids(i);
        Entry(compressed_, batch.compressed_pages, s, position) = batch.ids(i);
        if (row < batch.logit_rows.shape[0] && batch.logit_rows(row) == i) {
          WriteLogits(batch, s, position, &logits(row, 0));
          ++row;
        }
      }
    }
    EXPECT_EQ(row, logits.shape[0]);
    return OkStatus();
  }

  Status ForwardMtp(const Batch&, View<const int32_t, 1>, View<float, 2>) override {
    return Unimplemented("no MTP layer");
  }

  std::function<void()> before_step;  // called on the engine thread
  std::atomic<int64_t> steps{0}, largest_batch{0};

 private:
  static uint64_t HashOf(std::span<const int32_t> ids, uint64_t hash) {
    for (const int32_t id : ids) hash = (hash ^ static_cast<uint64_t>(id)) * 0x9E3779B97F4A7C15 + 1;
    return hash;
  }

  static int32_t& Entry(std::vector<int32_t>& memory, const View<const int32_t, 2>& pages,
                        int64_t seq, int64_t position) {
    const int32_t page = pages(seq, position / kPageTokens);
    SC_CHECK(page >= 0);
    return memory[static_cast<size_t>(page * kPageTokens + position % kPageTokens)];
  }

  // As LogitsOf, but from the cache: the window's keys and all compressed ones.
  void WriteLogits(const Batch& batch, int64_t seq, int64_t position, float* logits) {
    std::vector<int32_t> all;
    for (int64_t p = 0; p <= position; ++p) {
      all.push_back(Entry(compressed_, batch.compressed_pages, seq, p));
      if (p <= position - kWindow) continue;
      EXPECT_EQ(Entry(window_, batch.window_pages, seq, p), all.back());
    }
    LogitsOf(all, logits);
  }

  ModelConfig config_;
  Context context_;
  std::vector<int32_t> window_, compressed_;
  std::vector<int64_t> slot_lengths_;
};

}  // namespace seacliff
