// Sampling from a row of logits; sampling.h is the definition.
#include "engine/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/random.h"

namespace seacliff {
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

bool HasPenalty(const SampleArgs& args) {
  return args.repetition_penalty != 1 || args.presence_penalty != 0 || args.frequency_penalty != 0;
}

// Step 2 of the definition, on a copy. Only named ids change.
void Adjust(const SampleArgs& args, std::vector<float>& logits) {
  logits.assign(args.logits.begin(), args.logits.end());
  if (HasPenalty(args)) {
    for (const TokenCount& seen : args.counts) {
      float& logit = logits[static_cast<size_t>(seen.id)];
      logit = logit > 0 ? logit / args.repetition_penalty : logit * args.repetition_penalty;
      if (seen.count == 0) continue;
      logit -= args.frequency_penalty * static_cast<float>(seen.count) + args.presence_penalty;
    }
  }
  for (const auto& [id, bias] : args.bias) logits[static_cast<size_t>(id)] += bias;
  for (const int32_t id : args.banned) logits[static_cast<size_t>(id)] = -kInfinity;
}

void FillLogprobs(const SampleArgs& args, float largest, SampleScratch& scratch, Token& token) {
  double sum = 0;
  for (const float logit : args.logits) sum += static_cast<double>(std::exp(logit - largest));
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - log_sum);
  };
  token.logprob = logprob(args.logits[static_cast<size_t>(token.id)]);
  SelectTop(args.logits, static_cast<size_t>(args.top_logprobs), scratch.candidates);
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
void Truncate(const SampleArgs& args, std::span<const float> logits, float largest,
              SampleScratch& scratch) {
  std::vector<Candidate>& candidates = scratch.candidates;
  if (args.top_k > 0 && static_cast<size_t>(args.top_k) < logits.size()) {
    SelectTop(logits, static_cast<size_t>(args.top_k), candidates);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  } else {
    candidates.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {logits[i], static_cast<int32_t>(i)};
  }
  double sum = 0;
  for (Candidate& candidate : candidates) {
    candidate.weight = std::exp((candidate.logit - largest) / args.temperature);
    sum += static_cast<double>(candidate.weight);
  }
  if (args.top_p < 1) {
    const double wanted = static_cast<double>(args.top_p) * sum;
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
  if (args.min_p > 0) {
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < args.min_p; });
  }
}

int32_t DrawToken(const SampleArgs& args, std::span<const float> logits, float largest,
                  SampleScratch& scratch) {
  const double u = RandomUniform(args.seed, args.index, Draw::kToken);
  if (args.top_k > 0 || args.top_p < 1 || args.min_p > 0) {
    Truncate(args, logits, largest, scratch);
    const std::vector<Candidate>& stay = scratch.candidates;
    const auto weight = [&](size_t i) { return static_cast<double>(stay[i].weight); };
    return stay[Choose(stay.size(), u, weight)].id;
  }
  std::vector<float>& weights = scratch.weights;
  weights.resize(logits.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::exp((logits[i] - largest) / args.temperature);
  }
  const auto weight = [&](size_t i) { return static_cast<double>(weights[i]); };
  return static_cast<int32_t>(Choose(weights.size(), u, weight));
}

}  // namespace

TokenCounts::TokenCounts(std::span<const int32_t> prompt, int64_t more) {
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  counts_.reserve(ids.size() + static_cast<size_t>(more));
  for (const int32_t id : ids) counts_.push_back({id, 0});
}

void TokenCounts::Add(int32_t id) {
  const auto place =
      std::lower_bound(counts_.begin(), counts_.end(), id,
                       [](const TokenCount& count, int32_t value) { return count.id < value; });
  if (place != counts_.end() && place->id == id)
    ++place->count;
  else
    counts_.insert(place, {id, 1});
}

Status Sample(const SampleArgs& args, SampleScratch& scratch, Token& token) {
  SC_CHECK(!args.logits.empty());
  token.top.clear();
  token.logprob = 0;
  const int32_t best = ArgMax(args.logits);
  if (best < 0) return Internal("the model gave logits that are NaN or infinite");

  std::span<const float> logits = args.logits;
  token.id = best;
  if (HasPenalty(args) || !args.bias.empty() || !args.banned.empty()) {
    Adjust(args, scratch.logits);
    logits = scratch.logits;
    token.id = ArgMax(logits);
    if (token.id < 0)
      return Internal("logit_bias, penalties and min_tokens leave no token to choose");
  }
  if (args.temperature > 0) {
    token.id = DrawToken(args, logits, logits[static_cast<size_t>(token.id)], scratch);
  }
  if (args.top_logprobs >= 0) {
    FillLogprobs(args, args.logits[static_cast<size_t>(best)], scratch, token);
  }
  return OkStatus();
}

}  // namespace seacliff
