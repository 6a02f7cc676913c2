// Reference row of sample.
#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "kernels/sample/steps.h"

namespace seacliff::sample {
namespace {

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

int32_t ArgMax(std::span<const float> logits, SampleScratch&) {
  bool finite = true;
  float largest = -kInfinity;
  for (const float logit : logits) {
    finite &= logit < kInfinity;  // false for NaN too
    largest = logit > largest ? logit : largest;
  }
  if (!finite || largest == -kInfinity) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

double Weigh(const SampleRow& row, float largest, SampleScratch& scratch) {
  double sum = 0;
  for (const float logit : row.logits) sum += static_cast<double>(std::exp(logit - largest));
  SelectTop(row.logits, static_cast<size_t>(row.top_logprobs), scratch.candidates);
  return sum;
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

}  // namespace

void Ref(Context& k, const SampleArgs& a) {
  k.pool().For(static_cast<int64_t>(a.rows.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SampleRow& row = a.rows[static_cast<size_t>(i)];
      row.error = SampleOne(row, {ArgMax, DrawToken, Weigh});
    }
  });
}

}  // namespace seacliff::sample
