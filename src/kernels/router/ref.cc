// Reference row of router.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/router/op.h"

namespace seacliff::router {
namespace {

float Margin(const std::vector<float>& score, const std::vector<int32_t>& order, int64_t picks) {
  if (picks >= static_cast<int64_t>(order.size())) return INFINITY;
  const auto last = static_cast<size_t>(order[static_cast<size_t>(picks - 1)]);
  return score[last] - score[static_cast<size_t>(order[static_cast<size_t>(picks)])];
}

}  // namespace

void Ref(Context&, const RouterArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1];
  const int64_t experts = a.gate.rows, picks = a.picks.shape[1];
  std::vector<float> gate(static_cast<size_t>(dim)), x(static_cast<size_t>(tokens * dim));
  for (size_t i = 0; i < x.size(); ++i) x[i] = a.x.Load(static_cast<int64_t>(i));
  std::vector<float> affinity(static_cast<size_t>(tokens * experts));
  for (int64_t e = 0; e < experts; ++e) {
    DecodeRow(a.gate, e, gate.data());
    for (int64_t t = 0; t < tokens; ++t) {
      const auto logit = static_cast<float>(Dot(x.data() + t * dim, gate.data(), dim));
      const float softplus = logit > 20 ? logit : std::log1p(std::exp(logit));
      affinity[static_cast<size_t>(t * experts + e)] = std::sqrt(softplus);
    }
  }
  std::vector<int32_t> order(static_cast<size_t>(experts));
  std::vector<float> score(static_cast<size_t>(experts));
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = affinity.data() + t * experts;
    if (a.table) {
      for (int64_t i = 0; i < picks; ++i) {
        a.picks(t, i) = static_cast<int32_t>(a.table(a.ids(t), i));
      }
    } else {
      for (int64_t e = 0; e < experts; ++e) score[static_cast<size_t>(e)] = row[e] + a.bias(e);
      std::iota(order.begin(), order.end(), 0);
      const int64_t ranked = std::min(picks + 1, experts);
      std::partial_sort(order.begin(), order.begin() + ranked, order.end(),
                        [&](int32_t p, int32_t q) {
                          const float sp = score[static_cast<size_t>(p)];
                          const float sq = score[static_cast<size_t>(q)];
                          return sp != sq ? sp > sq : p < q;
                        });
      for (int64_t i = 0; i < picks; ++i) a.picks(t, i) = order[static_cast<size_t>(i)];
    }
    if (a.margin) a.margin(t) = a.table ? INFINITY : Margin(score, order, picks);
    float sum = 0;
    for (int64_t i = 0; i < picks; ++i) sum += row[a.picks(t, i)];
    for (int64_t i = 0; i < picks; ++i) {
      a.weights(t, i) = sum > 0 ? row[a.picks(t, i)] / sum * a.route_scale : 0;
    }
  }
}

}  // namespace seacliff::router
