// router: which experts each token goes to, and with what weight (spec/model.md 2.11 steps 1-3).
//
//   a[t, e] = sqrt(softplus(x[t, :] . gate[e, :]))
//   picks[t, :] = the `picks` largest of a[t, e] + bias[e] (the lower expert on a tie), or the row
//                 table[ids[t], :] in hash layers
//   weights[t, i] = a[t, picks[t, i]] / sum_i a[t, picks[t, i]] * route_scale
//
// Logits and all that follows in f32 or better. x: [tokens, dim], bf16 or f32. gate: [experts,
// dim]. bias: [experts] f32, empty in hash layers. table: [vocab, picks] i64, empty in scored
// layers. picks: [tokens, picks]; weights: [tokens, picks] f32, in the order of picks.
// margin: [tokens] f32, or empty: by how much the last pick's score beat the best one left out
// (infinite where there was no choice). A diagnosis of ties; a row may leave it to ref.
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct RouterArgs {
  Act<2> x;
  Matrix gate;
  View<const float, 1> bias;
  View<const int64_t, 2> table;
  View<const int32_t, 1> ids;
  float route_scale;
  View<int32_t, 2> picks;
  View<float, 2> weights;
  View<float, 1> margin = {};
};

void Router(Context& k, const RouterArgs& a);

namespace router {
bool CpuTakes(const RouterArgs& a);  // packed, no margin
void Cpu(Context& k, const RouterArgs& a);
// gate as stored, bf16, up to 2,048 experts and 32 picks
inline bool CudaTakes(const RouterArgs& a) {
  return a.gate.layout == WeightLayout::kRowMajor && !a.x.exact() && a.gate.rows <= 2048 &&
         a.gate.format != WeightFormat::kMxfp4 && a.picks.shape[1] <= 32;
}
// Bytes of workspace that Cuda asks for; more of anything asks for no less (model/memory_plan.h).
constexpr int64_t CudaWorkspace(int64_t tokens, int64_t experts) { return tokens * experts * 4; }
void Cuda(Context& k, const RouterArgs& a);
void Ref(Context& k, const RouterArgs& a);
}  // namespace router

}  // namespace seacliff
