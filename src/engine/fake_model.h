// A model for tests of the engine: its logits are a hash of what it reads back through the page
// tables, and what it writes into pages is made of the rows in its slot, so a wrong page, position,
// chunk or snapshot changes the tokens. No weights.
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
#include "tensor/state_rows.h"

namespace seacliff {

class FakeModel final : public Model {
 public:
  static constexpr int32_t kVocab = 97;
  static constexpr int64_t kWindow = 128;
  static constexpr int32_t kFaultId = 94;   // the device is lost over it
  static constexpr int32_t kPoisonId = 95;  // a step that computes it fails
  static constexpr int32_t kNanId = 96;     // its own logits are NaN

  explicit FakeModel(const CacheSize& size) : context_(1) {
    config_.vocab_size = kVocab;
    config_.window = kWindow;
    config_.max_positions = 1 << 20;
    const auto pages = static_cast<size_t>(size.compressed_pages);
    const auto slots = static_cast<size_t>(size.slots);
    window_.resize(static_cast<size_t>(size.window_pages) * kPageTokens);
    blocks_4_.resize(pages * (kPageTokens / 4));
    blocks_128_.resize(pages);
    rows_4_.resize(slots * kRows4);
    snapshots_.resize(static_cast<size_t>(size.snapshots) * kStatePageEnd);
    rows_128_.resize(slots * kPageTokens);
  }

  // The logits after `ids`, by definition: of the window's tokens, and of the blocks of 4 (each
  // with the one before it) and of 128 that are complete.
  static void LogitsOf(std::span<const int32_t> ids, float* logits) {
    const size_t n = ids.size(), window = static_cast<size_t>(kWindow);
    uint64_t hash = 1;
    for (size_t end = 4; end <= n; end += 4) {
      const size_t begin = end < 8 ? 0 : end - 8;
      hash = Mix(hash, HashOf(ids.subspan(begin, end - begin), 4));
    }
    for (size_t end = 128; end <= n; end += 128) {
      hash = Mix(hash, HashOf(ids.subspan(end - 128, 128), 128));
    }
    WriteLogits(Mix(hash, HashOf(ids.subspan(n > window ? n - window : 0), 2)), ids.back(), logits);
  }

  const ModelConfig& config() const override { return config_; }
  Context& context() override { return context_; }

  Status Forward(const Batch& batch, const ForwardTrace*) override {
    if (before_step) before_step();
    ++steps;
    if (fault) {
      const Status status = fault();
      if (!status.ok() && !late_faults) return status;
      context_.Fail(status);
    }
    tokens += batch.tokens();
    largest_batch = std::max<int64_t>(largest_batch, batch.tokens());
    for (int64_t i = 0; i < batch.tokens(); ++i) {
      if (batch.ids(i) == kPoisonId) return Internal("poisoned");
      if (batch.ids(i) == kFaultId) return Unavailable("the device is gone");
    }
    int64_t row = 0;
    logits_.resize(static_cast<size_t>(batch.logit_rows.shape[0] * kVocab));
    for (int64_t s = 0; s < batch.seqs(); ++s) {
      const int64_t begin = batch.seq_begin(s), end = batch.seq_begin(s + 1);
      EXPECT_LT(begin, end);
      for (int64_t i = begin; i < end; ++i) {
        EXPECT_EQ(batch.positions(i), batch.positions(begin) + i - begin);
        EXPECT_EQ(batch.seq_of(i), s);
        Compute(batch, s, batch.positions(i), batch.ids(i));
        if (row < batch.logit_rows.shape[0] && batch.logit_rows(row) == i) {
          ReadLogits(batch, s, batch.positions(i), logits_.data() + row * kVocab);
          ++row;
        }
      }
    }
    EXPECT_EQ(row, batch.logit_rows.shape[0]);
    return OkStatus();
  }

  bool runs_ahead() const override { return ahead; }

  void CopyRows(std::span<const RowCopy> copies) override {
    for (const RowCopy& copy : copies) {
      int32_t* live = &rows_4_[static_cast<size_t>(copy.slot * kRows4 + Row4(copy.position - 4))];
      int32_t* kept = &snapshots_[static_cast<size_t>(copy.snapshot * kStatePageEnd)];
      std::copy_n(copy.to_slot ? kept : live, kStatePageEnd, copy.to_slot ? live : kept);
    }
    row_copies += static_cast<int64_t>(copies.size());
  }

  Status ForwardMtp(const Batch&, View<const int32_t, 1>) override {
    return Unimplemented("no MTP layer");
  }

  Result<double> TimeLastStep() override { return Unimplemented("no device"); }

  View<const float, 2> logits() const override {
    return {logits_.data(), {static_cast<int64_t>(logits_.size()) / kVocab, kVocab}};
  }

  bool ahead = false;                 // it says that it runs ahead; set before its first step
  std::function<void()> before_step;  // called on the engine thread
  std::function<Status()> fault;      // the step fails with this
  bool late_faults = false;           // sampling tells it, as on a device
  std::atomic<int64_t> steps{0}, tokens{0}, largest_batch{0}, row_copies{0};

 private:
  static constexpr int64_t kRows4 = StateRows(4);
  static int64_t Row4(int64_t position) { return StateRow<int64_t>(4, position); }

  static uint64_t Mix(uint64_t hash, uint64_t value) {
    return (hash ^ value) * 0x9E3779B97F4A7C15 + 1;
  }
  static uint64_t HashOf(std::span<const int32_t> ids, uint64_t hash) {
    for (const int32_t id : ids) hash = Mix(hash, static_cast<uint64_t>(id));
    return hash;
  }
  static void WriteLogits(uint64_t hash, int32_t last, float* logits) {
    for (int32_t id = 0; id < kVocab; ++id) {
      const double u = RandomUniform(hash, static_cast<uint64_t>(id), Draw::kToken);
      logits[id] = static_cast<float>(6 * u - 3);
      if (id >= kFaultId) logits[id] = -200;  // only prompts bring these
      if (last == kNanId) logits[id] = NAN;
    }
  }

  // Entry `position / ratio` of a storage with an entry for every `ratio` tokens.
  template <typename T>
  static T& Entry(std::vector<T>& memory, const View<const int32_t, 2>& pages, int64_t seq,
                  int64_t position, int64_t ratio) {
    const int32_t page = pages(seq, position / kPageTokens);
    SC_CHECK(page >= 0);
    return memory[static_cast<size_t>(page * (kPageTokens / ratio) +
                                      position % kPageTokens / ratio)];
  }

  // Writes what a token leaves in the cache. A block's entry is made of the rows in the slot alone.
  void Compute(const Batch& batch, int64_t seq, int64_t position, int32_t id) {
    int32_t* rows_4 = &rows_4_[static_cast<size_t>(batch.slots(seq) * kRows4)];
    int32_t* rows_128 = &rows_128_[static_cast<size_t>(batch.slots(seq) * kPageTokens)];
    rows_4[Row4(position)] = id;
    rows_128[position % kPageTokens] = id;
    Entry(window_, batch.window_pages, seq, position, 1) = id;
    if ((position + 1) % 4 == 0) {
      std::vector<int32_t> ids;
      for (int64_t p = std::max<int64_t>(0, position - 7); p <= position; ++p) {
        ids.push_back(rows_4[Row4(p)]);
      }
      Entry(blocks_4_, batch.compressed_pages, seq, position, 4) = HashOf(ids, 4);
    }
    if ((position + 1) % kPageTokens == 0) {
      Entry(blocks_128_, batch.compressed_pages, seq, position, kPageTokens) =
          HashOf({rows_128, static_cast<size_t>(kPageTokens)}, 128);
    }
  }

  // As LogitsOf, but from the cache.
  void ReadLogits(const Batch& batch, int64_t seq, int64_t position, float* logits) {
    uint64_t hash = 1;
    for (int64_t p = 3; p <= position; p += 4) {
      hash = Mix(hash, Entry(blocks_4_, batch.compressed_pages, seq, p, 4));
    }
    for (int64_t p = 127; p <= position; p += kPageTokens) {
      hash = Mix(hash, Entry(blocks_128_, batch.compressed_pages, seq, p, kPageTokens));
    }
    std::vector<int32_t> window;
    for (int64_t p = std::max<int64_t>(0, position - kWindow + 1); p <= position; ++p) {
      window.push_back(Entry(window_, batch.window_pages, seq, p, 1));
    }
    WriteLogits(Mix(hash, HashOf(window, 2)), window.back(), logits);
  }

  ModelConfig config_;
  Context context_;
  std::vector<float> logits_;
  std::vector<int32_t> window_;                  // [window pages, 128]
  std::vector<uint64_t> blocks_4_, blocks_128_;  // [compressed pages, 32], [compressed pages]
  std::vector<int32_t> rows_4_, rows_128_;       // [slots, kRows4], [slots, 128]
  std::vector<int32_t> snapshots_;               // [snapshots, 4]
};

}  // namespace seacliff
