// sample: the next token from each row of logits. A row's result depends on its own arguments
// alone: no request, no company, no clock.
//
// In this order:
//   1. logprobs: natural log of softmax(logits), before everything below.
//   2. repetition penalty r: logit / r if positive, else logit * r, for ids of prompt or output;
//      logit -= frequency * count + presence, for ids of the output, count times in it;
//      logit += bias; banned ids get -inf, and so do those that are not allowed.
//   3. temperature 0: the largest logit, the lowest id on a tie. Done.
//   4. weight = exp((logit - largest) / temperature).
//   5. top_k: the k largest logits stay, lower ids on ties. top_p: of those, best first, the
//      shortest prefix whose weights reach top_p of their sum. min_p: weights >= min_p stay (the
//      largest weight is 1).
//   6. u in [0, 1) is draw number `index` of `seed` (base/random.h); the first id in ascending
//      order at which the running sum of the weights that stayed exceeds u times their sum.
//
// Step 2 in f32, every operation rounded; weights in f32 or better, their sums in double or, after
// rounding each weight to a multiple of 2^-61 of the number of ids or less, exact.
//
// With a device `logits` and `allowed` are device memory; all else is the host's. The call then
// waits for the device once.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "seacliff/engine.h"

namespace seacliff {

// An id that occurred in a request: in its prompt (count 0 if only there) or `count` times in its
// output.
struct TokenCount {
  int32_t id = 0;
  int32_t count = 0;
};

// Words of a mask, a bit an id; bits beyond the vocabulary do not matter.
constexpr int64_t MaskWords(int64_t vocab) { return (vocab + 31) / 32; }
constexpr int64_t MaskBytes(int64_t vocab) { return 4 * MaskWords(vocab); }

// Memory that one row needs on its way; kept from step to step.
struct SampleScratch {
  struct Candidate {
    float logit = 0;
    int32_t id = 0;
    float weight = 0;
  };
  std::vector<float> logits, weights;
  std::vector<Candidate> candidates, order;
  // Of the cpu row: the largest logits of each chunk, sums of its weights, logits of a selection.
  std::vector<float> maxima, keys;
  std::vector<double> sums;
};

struct SampleRow {
  std::span<const float> logits;  // [vocab], not empty
  float temperature = 1;
  int32_t top_k = 0;  // 0 or -1: all
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::span<const TokenCount> counts;  // ids once; read only if one of the three penalties is on
  std::span<const std::pair<int32_t, float>> bias;
  std::span<const int32_t> banned;
  // [MaskWords(vocab)]: id i is allowed by bit i % 32 of word i / 32. Empty: all are.
  std::span<const uint32_t> allowed;
  uint64_t seed = 0;
  uint64_t index = 0;  // how many tokens were generated before
  int32_t top_logprobs = -1;

  SampleScratch* scratch = nullptr;  // no two rows of a call share one
  // Outputs. `token` gets its id, and with top_logprobs >= 0 its logprob and the top; it is
  // undefined after an error.
  Token* token = nullptr;
  Status error;  // if the logits hold NaN or +inf, or if no id is left to choose; of this row alone
};

struct SampleArgs {
  std::span<SampleRow> rows;
};

void Sample(Context& k, const SampleArgs& a);

namespace sample {
// Entries of all lists of a call (counts, bias, banned, top_logprobs) that memory is asked for.
constexpr int64_t CudaEntries(int64_t entries) {
  int64_t room = 8192;  // so that lists that grow from step to step seldom need more
  while (room < entries) room *= 2;
  return room;
}
// Bytes of workspace that Cuda asks for; more of anything asks for no less (model/memory_plan.h).
inline constexpr int64_t kCudaRowBytes = 512, kCudaBins = 2048, kCudaSlice = 256;
constexpr int64_t CudaWorkspace(int64_t rows, int64_t vocab, int64_t entries) {
  const int64_t job = 8 * kCudaBins + 16 * (vocab / kCudaSlice + 1);
  return 8 * CudaEntries(entries) + rows * (kCudaRowBytes + 2 * job + 4 * vocab);
}
void Cuda(Context& k, const SampleArgs& a);
void Cpu(Context& k, const SampleArgs& a);
void Ref(Context& k, const SampleArgs& a);
}  // namespace sample

}  // namespace seacliff
