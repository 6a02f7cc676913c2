// grouped_linear: the first half of the output projection, one matrix for each group of heads
// (spec/model.md 2.7 step 3).
//
//   out[t, g, n] = sum_k x'[t, g, k] * w[g * rank + n, k]
//
// x: [tokens, groups, cols], bf16 or f32. w: [groups * rank, cols]. out: [tokens, groups, rank],
// x's dtype.
//
// x' is x itself, which is what the official code multiplies. If `quantise` is set and x is bf16 it
// is x rounded as in linear: to e4m3 with a power-of-two scale for each 128 columns of a token's
// group, which is how vLLM serves it. A group's last columns have a scale of their own.
//
// Order of summation: as in linear.
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct GroupedLinearArgs {
  Act<3> x;
  Matrix w;
  bool quantise = false;
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
