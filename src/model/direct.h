// Drives a model without a scheduler: a few sequences that own fixed pages and slots. For tools and
// tests that need logits of chosen tokens, not for serving.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/model.h"

namespace seacliff {

class DirectRunner {
 public:
  // Pages and slots that `seqs` sequences of at most `max_len` tokens need; set them in the options
  // a model is loaded with.
  static void SizeCache(int64_t seqs, int64_t max_len, ModelOptions& options);

  DirectRunner(Model& model, int64_t seqs, int64_t max_len);

  struct Piece {
    int64_t seq;
    std::span<const int32_t> ids;  // the sequence's next tokens
  };
  // One step. `rows`: tokens of the step (pieces one after the other) whose logits are wanted; they
  // are then the model's logits().
  Status Step(std::span<const Piece> pieces, std::span<const int32_t> rows,
              const ForwardTrace* trace = nullptr);
  // The same, and copies them: rows.size() * vocab_size values.
  Status Step(std::span<const Piece> pieces, std::span<const int32_t> rows,
              std::vector<float>& logits, const ForwardTrace* trace = nullptr);
  // The MTP layer over the tokens of the last step; next_ids[i] follows token i.
  Status StepMtp(std::span<const int32_t> next_ids, std::vector<float>& logits);

  // The sequence goes on behind its first `length` tokens, in the same pages and slot; what they
  // hold stays. Other than 0, `length` is what it had now or a token less.
  void Restart(int64_t seq, int64_t length = 0) { lengths_[static_cast<size_t>(seq)] = length; }

 private:
  Batch batch() const;

  Model& model_;
  int64_t pages_per_seq_;
  std::vector<int64_t> lengths_;
  std::vector<int32_t> ids_, positions_, seq_of_, seq_begin_, slots_, pages_, rows_;
};

}  // namespace seacliff
