// linear: y = x W^T for every weight format (spec/model.md 2.13).
//
//   out[t, n] = sum_k x'[t, k] * w[n, k]
//
// x: [tokens, cols], bf16 or f32. w: [rows, cols]. out: [tokens, rows], bf16 or f32 (its own
// choice: compressors, router and head keep f32 of a bf16 x).
//
// x' is x rounded to e4m3 with a power-of-two scale for each 128 columns if `quantise` is set and x
// is bf16 (checkpoint numerics of FP8 and MXFP4 weights); otherwise x itself. In exact numerics
// (f32 x) nothing is quantised.
//
// Order of summation: partial sums of 128 along K (32 for MXFP4), in ascending order; each is one
// f32 value where x is quantised.
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct LinearArgs {
  Act<2> x;
  Matrix w;
  bool quantise = false;
  Act<2> out;
};

void Linear(Context& k, const LinearArgs& a);

namespace linear {
bool CpuTakes(const LinearArgs& a);  // packed weights, bf16
void Cpu(Context& k, const LinearArgs& a);
inline bool CudaTakes(const LinearArgs& a) {  // weights as stored, bf16
  return !a.x.exact() && a.w.layout == WeightLayout::kRowMajor;
}
// Bytes of workspace that a product of the CUDA rows (common/matmul.cuh) asks for at most, which it
// does if x is quantised or w is kMxfp4; more of anything asks for no less (model/memory_plan.h).
// Tokens count in eights and columns in blocks of 128, a group's each for itself.
constexpr int64_t CudaWorkspace(int64_t tokens, int64_t cols) {
  return (tokens + 7) / 8 * 8 * ((cols + 127) / 128 * 128) * 2;
}
void Cuda(Context& k, const LinearArgs& a);
// Tokens from which the sm_90a row takes over. It adds up e4m3 products in fewer bits than f32 has
// (docs/numerics.md).
constexpr int64_t kSm90Tokens = 256;
bool Sm90Takes(const LinearArgs& a);
void Sm90(Context& k, const LinearArgs& a);
void Ref(Context& k, const LinearArgs& a);
}  // namespace linear

}  // namespace seacliff
