// A step's ragged batch: several sequences, each bringing a prefill, a chunk of one, or one decoded
// token. Integers only; shared by all ops that look at positions or pages.
#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace seacliff {

struct Batch {
  // For each token of the step, sequences one after the other, positions ascending by one.
  View<const int32_t, 1> ids;        // [tokens]
  View<const int32_t, 1> positions;  // [tokens] 0-based position in its sequence
  View<const int32_t, 1> seq_of;     // [tokens] which sequence of the step
  // For each sequence of the step.
  View<const int32_t, 1> seq_begin;  // [seqs + 1] its first token; ends with `tokens`
  View<const int32_t, 1> slots;      // [seqs] where its compressor rows live
  // Page p of a sequence holds its tokens 128 p .. 128 p + 127; -1 where no page is held (window
  // pages that no query can see any more).
  View<const int32_t, 2> window_pages;      // [seqs, max_pages]
  View<const int32_t, 2> compressed_pages;  // [seqs, max_pages]
  // Tokens whose logits are wanted.
  View<const int32_t, 1> logit_rows;  // [rows]

  int64_t tokens() const { return ids.shape[0]; }
  int64_t seqs() const { return slots.shape[0]; }
};

}  // namespace seacliff
