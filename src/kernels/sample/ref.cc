// Reference row of sample.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/random.h"
#include "kernels/sample/op.h"

namespace seacliff::sample {
namespace {

using Candidate = SampleScratch::Candidate;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The `n` best of a row, best first.
void SelectTop(std::span<const float> logits, size_t n, std::vector<Candidate>& best) {
  n = std::min(n, logits.size());
  best.clear();
  if (n == 0) return;
  for (size_t i = 0; i < n; ++i) best.push_back({logits[i], static_cast<int32_t>(i)});
  // A heap whose front is the worst of the best; few later elements get past it.
  std::make_heap(best.begin(), best.end(), Better);
  for (size_t i = n; i < logits.size(); ++i) {
    if (logits[i] <= best.front().logit) continue;  // a later id loses ties
    std::pop_heap(best.begin(), best.end(), Better);
    best.back() = {logits[i], static_cast<int32_t>(i)};
    std::push_heap(best.begin(), best.end(), Better);
  }
  std::sort_heap(best.begin(), best.end(), Better);
}

// The first id of the largest logit; -1 if a logit is NaN or +inf, or all are -inf.
int32_t ArgMax(std::span<const float> logits) {
  bool finite = true;
  float largest = -kInfinity;
  for (const float logit : logits) {
    finite &= logit < kInfinity;  // false for NaN too
    largest = logit > largest ? logit : largest;
  }
  if (!finite || largest == -kInfinity) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

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

void FillLogprobs(const SampleRow& row, float largest, SampleScratch& scratch, Token& token) {
  double sum = 0;
  for (const float logit : row.logits) sum += static_cast<double>(std::exp(logit - largest));
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_sum);
  };
  token.logprob = logprob(row.logits[static_cast<size_t>(token.id)]);
  SelectTop(row.logits, static_cast<size_t>(row.top_logprobs), scratch.candidates);
  for (const Candidate& candidate : scratch.candidates) {
    token.top.push_back({candidate.id, logprob(candidate.logit)});
  }
}

// The id at which the running sum of weights exceeds u times their sum.
template <typename Weight>
size_t Choose(size_t n, double u, const Weight& weight) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += weight(i);
  const double target = u * sum;
  double running = 0;
  size_t last = 0;  // u * sum may round up to the sum itself: then the last that has a weight
  for (size_t i = 0; i < n; ++i) {
    const double w = weight(i);
    if (w == 0) continue;
    running += w;
    last = i;
    if (running > target) break;
  }
  return last;
}

// The worst of the shortest prefix, best first, whose weights reach `wanted`. Reorders `order`. By
// halving: a full sort of a large vocabulary would take longer than everything else together.
Candidate LastOfPrefix(std::span<Candidate> order, double wanted) {
  while (order.size() > 1) {
    const size_t half = order.size() / 2;
    std::nth_element(order.begin(), order.begin() + static_cast<int64_t>(half), order.end(),
                     Better);
    double sum = 0;
    for (const Candidate& candidate : order.first(half))
      sum += static_cast<double>(candidate.weight);
    if (sum >= wanted) {
      order = order.first(half);
    } else {
      wanted -= sum;
      order = order.subspan(half);
    }
  }
  return order.front();
}

// Step 5 of the definition: the candidates that stay, in ascending order of id.
void Truncate(const SampleRow& row, std::span<const float> logits, float largest,
              SampleScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < logits.size()) {
    SelectTop(logits, static_cast<size_t>(row.top_k), candidates);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  } else {
    candidates.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {logits[i], static_cast<int32_t>(i)};
  }
  double sum = 0;
  for (Candidate& candidate : candidates) {
    candidate.weight = std::exp((candidate.logit - largest) / row.temperature);
    sum += static_cast<double>(candidate.weight);
  }
  if (row.top_p < 1) {
    const double wanted = static_cast<double>(row.top_p) * sum;
    // All weights below this floor together are less than what may be cut, so none of them is in
    // the prefix.
    const double floor = 0.5 * (sum - wanted) / static_cast<double>(candidates.size());
    scratch.order.clear();
    for (const Candidate& candidate : candidates) {
      if (static_cast<double>(candidate.weight) >= floor) scratch.order.push_back(candidate);
    }
    const Candidate last = LastOfPrefix(scratch.order, wanted);
    std::erase_if(candidates, [&](const Candidate& candidate) { return Better(last, candidate); });
  }
  if (row.min_p > 0) {
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < row.min_p; });
  }
}

int32_t DrawToken(const SampleRow& row, std::span<const float> logits, float largest,
                  SampleScratch& scratch) {
  const double u = RandomUniform(row.seed, row.index, Draw::kToken);
  if (row.top_k > 0 || row.top_p < 1 || row.min_p > 0) {
    Truncate(row, logits, largest, scratch);
    const std::vector<Candidate>& stay = scratch.candidates;
    const auto weight = [&](size_t i) { return static_cast<double>(stay[i].weight); };
    return stay[Choose(stay.size(), u, weight)].id;
  }
  std::vector<float>& weights = scratch.weights;
  weights.resize(logits.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::exp((logits[i] - largest) / row.temperature);
  }
  const auto weight = [&](size_t i) { return static_cast<double>(weights[i]); };
  return static_cast<int32_t>(Choose(weights.size(), u, weight));
}

Status SampleOne(const SampleRow& row) {
  SC_CHECK(!row.logits.empty());
  SampleScratch& scratch = *row.scratch;
  Token& token = *row.token;
  token.top.clear();
  token.logprob = 0;
  const int32_t best = ArgMax(row.logits);
  if (best < 0) return Internal("the model gave logits that are NaN or infinite");

  std::span<const float> logits = row.logits;
  token.id = best;
  if (HasPenalty(row) || !row.bias.empty() || !row.banned.empty()) {
    Adjust(row, scratch.logits);
    logits = scratch.logits;
    token.id = ArgMax(logits);
    if (token.id < 0)
      return Internal("logit_bias, penalties and min_tokens leave no token to choose");
  }
  if (row.temperature > 0) {
    token.id = DrawToken(row, logits, logits[static_cast<size_t>(token.id)], scratch);
  }
  if (row.top_logprobs >= 0) {
    FillLogprobs(row, row.logits[static_cast<size_t>(best)], scratch, token);
  }
  return OkStatus();
}

}  // namespace

void Ref(Context& k, const SampleArgs& a) {
  k.pool().For(static_cast<int64_t>(a.rows.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SampleRow& row = a.rows[static_cast<size_t>(i)];
      row.error = SampleOne(row);
    }
  });
}

}  // namespace seacliff::sample
