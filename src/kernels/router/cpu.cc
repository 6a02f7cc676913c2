// cpu row of router: the logits as a packed product, then each token's choice.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/matmul.h"
#include "kernels/router/op.h"

namespace seacliff::router {
namespace {

// The `picks` best of bias + affinity, the lower expert on a tie: few enough for a scan each.
void Choose(const float* affinity, const View<const float, 1>& bias, std::vector<float>& score,
            View<int32_t, 1> picks) {
  const int64_t experts = bias.shape[0];
  for (int64_t e = 0; e < experts; ++e) score[static_cast<size_t>(e)] = affinity[e] + bias(e);
  for (int64_t i = 0; i < picks.shape[0]; ++i) {
    const auto best = std::max_element(score.begin(), score.end());
    picks(i) = static_cast<int32_t>(best - score.begin());
    *best = -INFINITY;
  }
}

}  // namespace

bool CpuTakes(const RouterArgs& a) {
  return a.gate.layout == WeightLayout::kTiles && !a.x.exact() && !a.margin;
}

void Cpu(Context& k, const RouterArgs& a) {
  const int64_t tokens = a.x.shape[0], experts = a.gate.rows, picks = a.picks.shape[1];
  thread_local MatMulInput x;
  thread_local std::vector<float> logits;
  logits.resize(static_cast<size_t>(tokens * experts));
  const Segment all{0, tokens};
  x.Prepare(k.pool(), a.x, false, {&all, 1});
  const Act<2> out(logits.data(), DType::kF32, {tokens, experts});
  MatMul(k.pool(), a.gate, x, out);
  k.pool().For(tokens, 8, [&, all = logits.data()](int64_t begin, int64_t end) {
    std::vector<float> score(static_cast<size_t>(experts));
    for (int64_t t = begin; t < end; ++t) {
      float* affinity = all + t * experts;
      for (int64_t e = 0; e < experts; ++e) {
        const float softplus = affinity[e] > 20 ? affinity[e] : std::log1p(std::exp(affinity[e]));
        affinity[e] = std::sqrt(softplus);
      }
      if (a.table) {
        for (int64_t i = 0; i < picks; ++i) {
          a.picks(t, i) = static_cast<int32_t>(a.table(a.ids(t), i));
        }
      } else {
        Choose(affinity, a.bias, score, a.picks[t]);
      }
      float sum = 0;
      for (int64_t i = 0; i < picks; ++i) sum += affinity[a.picks(t, i)];
      for (int64_t i = 0; i < picks; ++i) {
        a.weights(t, i) = sum > 0 ? affinity[a.picks(t, i)] / sum * a.route_scale : 0;
      }
    }
  });
}

}  // namespace seacliff::router
