// The order of the steps, and those that touch few ids.
#include "kernels/sample/steps.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace seacliff::sample {
namespace {

constexpr size_t kWord = 32;
constexpr auto kBits = [] {
  std::array<uint32_t, kWord> bits{};
  for (size_t i = 0; i < kWord; ++i) bits[i] = uint32_t{1} << i;
  return bits;
}();

// -inf for the ids that a mask leaves out. Without branches on bits, which nothing could foretell.
void Mask(std::span<const uint32_t> allowed, std::vector<float>& logits) {
  size_t first = 0;
  for (; first + kWord <= logits.size(); first += kWord) {
    const uint32_t word = allowed[first / kWord];
    float* some = logits.data() + first;
#pragma omp simd
    for (size_t i = 0; i < kWord; ++i) some[i] = (word & kBits[i]) != 0 ? some[i] : -kInfinity;
  }
  for (; first < logits.size(); ++first) {
    if ((allowed[first / kWord] & kBits[first % kWord]) == 0) logits[first] = -kInfinity;
  }
}

// Step 2 of the definition, on a copy.
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
  if (!row.allowed.empty()) Mask(row.allowed, logits);
}

}  // namespace

bool HasPenalty(const SampleRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

bool Adjusts(const SampleRow& row) {
  return HasPenalty(row) || !row.bias.empty() || !row.banned.empty() || !row.allowed.empty();
}

void CheckSizes(const SampleRow& row) {
  const auto words = static_cast<size_t>(MaskWords(static_cast<int64_t>(row.logits.size())));
  SC_CHECK(!row.logits.empty() && (row.allowed.empty() || row.allowed.size() == words));
}

Status UnusableLogits() { return Internal("the model gave logits that are NaN or infinite"); }

Status NothingToChoose() {
  return Internal(
      "logit_bias, penalties, min_tokens and the grammar or schema leave no token to choose");
}

void FillLogprobs(float largest, double sum, float logit, std::span<const Candidate> best,
                  Token& token) {
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logprob = [&](float v) {
    return static_cast<float>(static_cast<double>(v) - log_sum);
  };
  token.logprob = logprob(logit);
  for (const Candidate& candidate : best) {
    token.top.push_back({candidate.id, logprob(candidate.logit)});
  }
}

Status SampleOne(const SampleRow& row, const Parts& parts) {
  CheckSizes(row);
  SampleScratch& scratch = *row.scratch;
  Token& token = *row.token;
  token.top.clear();
  token.logprob = 0;
  const int32_t best = parts.arg_max(row.logits, scratch);
  if (best < 0) return UnusableLogits();

  std::span<const float> logits = row.logits;
  token.id = best;
  if (Adjusts(row)) {
    Adjust(row, scratch.logits);
    logits = scratch.logits;
    token.id = parts.arg_max(logits, scratch);
    if (token.id < 0) return NothingToChoose();
  }
  if (row.temperature > 0) {
    token.id = parts.draw(row, logits, logits[static_cast<size_t>(token.id)], scratch);
  }
  if (row.top_logprobs >= 0) {
    const float largest = row.logits[static_cast<size_t>(best)];
    const double sum = parts.weigh(row, largest, scratch);
    const size_t top = std::min(static_cast<size_t>(row.top_logprobs), row.logits.size());
    FillLogprobs(largest, sum, row.logits[static_cast<size_t>(token.id)],
                 std::span(scratch.candidates).first(top), token);
  }
  return OkStatus();
}

}  // namespace seacliff::sample
