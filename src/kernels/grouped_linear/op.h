// grouped_linear: the first half of the output projection, one matrix for each group of heads
// (spec/model.md 2.7 step 3).
//
//   out[t, g, n] = sum_k x[t, g, k] * w[g * rank + n, k]
//
// x: [tokens, groups, cols], bf16 or f32, not quantised (the official code multiplies in bf16).
// w: [groups * rank, cols]. out: [tokens, groups, rank], x's dtype.
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct GroupedLinearArgs {
  Act<3> x;
  Matrix w;
  Act<3> out;
};

void GroupedLinear(Context& k, const GroupedLinearArgs& a);

namespace grouped_linear {
bool CpuTakes(const GroupedLinearArgs& a);  // packed, bf16, rank % 64 == 0
void Cpu(Context& k, const GroupedLinearArgs& a);
inline bool CudaTakes(const GroupedLinearArgs& a) {  // weights as stored, bf16
  return a.w.layout == WeightLayout::kRowMajor && !a.x.exact();
}
void Cuda(Context& k, const GroupedLinearArgs& a);
void Ref(Context& k, const GroupedLinearArgs& a);
}  // namespace grouped_linear

}  // namespace seacliff
