// The order of the steps, and those that touch few ids.
#include "kernels/sample/steps.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace seacliff::sample {
namespace {

bool HasPenalty(const SampleRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

// Step 2 of the definition, on a copy. Only named ids change.
void Adjust(const SampleRow& row, std::vector<float>& logits) {
  logits.assign(row.logits.begin(), row.logits.end());
  if (HasPenalty(row)) {
    for (const TokenCount& seen : row.counts) {
      float& logit = logits[static_cast<size_t>(seen.id)];
      logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
      if (seen.count == 0) continue;
      logit -= row.frequency_penalty * static_cast<float>(seen.count) + row.presence_penalty;
    }
  }
  for (const auto& [id, bias] : row.bias) logits[static_cast<size_t>(id)] += bias;
  for (const int32_t id : row.banned) logits[static_cast<size_t>(id)] = -kInfinity;
}

void FillLogprobs(const SampleRow& row, const Parts& parts, float largest) {
  SampleScratch& scratch = *row.scratch;
  Token& token = *row.token;
  const double log_sum =
      static_cast<double>(largest) + std::log(parts.weigh(row, largest, scratch));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_sum);
  };
  token.logprob = logprob(row.logits[static_cast<size_t>(token.id)]);
  const size_t top = std::min(static_cast<size_t>(row.top_logprobs), row.logits.size());
  for (const Candidate& candidate : std::span(scratch.candidates).first(top)) {
    token.top.push_back({candidate.id, logprob(candidate.logit)});
  }
}

}  // namespace

bool Adjusts(const SampleRow& row) {
  return HasPenalty(row) || !row.bias.empty() || !row.banned.empty();
}

Status SampleOne(const SampleRow& row, const Parts& parts) {
  SC_CHECK(!row.logits.empty());
  SampleScratch& scratch = *row.scratch;
  Token& token = *row.token;
  token.top.clear();
  token.logprob = 0;
  const int32_t best = parts.arg_max(row.logits, scratch);
  if (best < 0) return Internal("the model gave logits that are NaN or infinite");

  std::span<const float> logits = row.logits;
  token.id = best;
  if (Adjusts(row)) {
    Adjust(row, scratch.logits);
    logits = scratch.logits;
    token.id = parts.arg_max(logits, scratch);
    if (token.id < 0)
      return Internal("logit_bias, penalties and min_tokens leave no token to choose");
  }
  if (row.temperature > 0) {
    token.id = parts.draw(row, logits, logits[static_cast<size_t>(token.id)], scratch);
  }
  if (row.top_logprobs >= 0) FillLogprobs(row, parts, row.logits[static_cast<size_t>(best)]);
  return OkStatus();
}

}  // namespace seacliff::sample
