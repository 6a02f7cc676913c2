// The steps of sample that every row takes alike; what runs over the whole vocabulary is the row's
// own.
#pragma once

#include <limits>
#include <span>

#include "kernels/sample/op.h"

namespace seacliff::sample {

using Candidate = SampleScratch::Candidate;

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Lower ids win ties.
inline bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Whether step 2 of the definition looks at row.counts; whether it changes any logit.
bool HasPenalty(const SampleRow& row);
bool Adjusts(const SampleRow& row);

// That spans are as long as they must be.
void CheckSizes(const SampleRow& row);

// What is wrong with a row whose logits, or adjusted logits, have no largest one.
Status UnusableLogits();
Status NothingToChoose();

// Step 1, from the largest logit, the sum of exp(logit - largest), the token's logit and the best
// ones, best first.
void FillLogprobs(float largest, double sum, float logit, std::span<const Candidate> best,
                  Token& token);

struct Parts {
  // The first id of the largest logit; -1 if a logit is NaN or +inf, or all are -inf.
  int32_t (*arg_max)(std::span<const float> logits, SampleScratch& scratch);
  // Steps 4 to 6 for a temperature above 0. `logits` are those that arg_max saw last.
  int32_t (*draw)(const SampleRow& row, std::span<const float> logits, float largest,
                  SampleScratch& scratch);
  // Step 1: the sum of exp(logit - largest) over row.logits. scratch.candidates begins with the
  // row.top_logprobs best ones, best first.
  double (*weigh)(const SampleRow& row, float largest, SampleScratch& scratch);
};

// A row from end to end.
Status SampleOne(const SampleRow& row, const Parts& parts);

}  // namespace seacliff::sample
