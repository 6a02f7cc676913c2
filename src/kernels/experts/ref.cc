// Reference row of experts: each expert gathers its tokens, runs as three linears, and scatters.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/experts/op.h"
#include "kernels/linear/op.h"

namespace seacliff::experts {
namespace {

struct Assignment {
  int64_t token;
  float weight;
};

// sums[token, :] += weight-scaled output of one expert, in the order of `rows`.
void RunExpert(Context& k, const ExpertsArgs& a, const ExpertWeights& w,
               const std::vector<Assignment>& rows, std::vector<float>& sums) {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t dim = a.x.shape[1], inter = w.gate.rows;
  const DType dtype = a.x.dtype;
  std::vector<float> x(static_cast<size_t>(count * dim)), y(x.size());
  std::vector<float> g(static_cast<size_t>(count * inter)), u(g.size()), h(g.size());
  const Act<2> x_act(x.data(), dtype, {count, dim}), y_act(y.data(), dtype, {count, dim});
  const Act<2> g_act(g.data(), dtype, {count, inter}), u_act(u.data(), dtype, {count, inter});
  const Act<2> h_act(h.data(), dtype, {count, inter});

  for (int64_t r = 0; r < count; ++r) {
    const int64_t token = rows[static_cast<size_t>(r)].token;
    for (int64_t i = 0; i < dim; ++i) x_act.Store(r * dim + i, a.x.Load(token * dim + i));
  }
  linear::Ref(k, {x_act, w.gate, true, g_act});
  linear::Ref(k, {x_act, w.up, true, u_act});
  for (int64_t i = 0; i < count * inter; ++i) {
    const float gate = std::min(g_act.Load(i), a.limit);
    const float up = std::clamp(u_act.Load(i), -a.limit, a.limit);
    const float silu = gate / (1.0f + std::exp(-gate));
    h_act.Store(i, silu * up * rows[static_cast<size_t>(i / inter)].weight);
  }
  linear::Ref(k, {h_act, w.down, true, y_act});
  for (int64_t r = 0; r < count; ++r) {
    float* sum = sums.data() + rows[static_cast<size_t>(r)].token * dim;
    for (int64_t i = 0; i < dim; ++i) sum[i] += y_act.Load(r * dim + i);
  }
}

}  // namespace

void Ref(Context& k, const ExpertsArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1], picks = a.picks.shape[1];
  std::vector<float> sums(static_cast<size_t>(tokens * dim), 0.0f);
  std::vector<std::vector<Assignment>> rows(a.experts.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < picks; ++i) {
      rows[static_cast<size_t>(a.picks(t, i))].push_back({t, a.weights(t, i)});
    }
  }
  for (size_t e = 0; e < a.experts.size(); ++e) {
    if (!rows[e].empty()) RunExpert(k, a, a.experts[e], rows[e], sums);
  }
  if (a.shared.gate) {
    std::vector<Assignment> all(static_cast<size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) all[static_cast<size_t>(t)] = {t, 1.0f};
    RunExpert(k, a, a.shared, all, sums);
  }
  for (int64_t i = 0; i < tokens * dim; ++i) {
    a.y.Store(i, sums[static_cast<size_t>(i)]);
  }
}

}  // namespace seacliff::experts
