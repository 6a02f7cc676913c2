// mhc_boundary: between two sub-blocks: the residual streams take in the sub-block before and give
// the input of the next (spec/model.md 2.3).
//
// post, if y is given, with the mix that the previous boundary wrote:
//   streams[k] <- post_k * y + sum_j C[j][k] * streams[j]         (rounded to the streams' dtype)
// pre, with X the streams flattened to S * dim values (S streams):
//   m = (fn X) * rsqrt(mean(X^2) + norm_eps)                      (2 S + S*S values)
//   pre_j = sigmoid(m_j * scale_0 + base_j) + hc_eps
//   post_j = 2 * sigmoid(m_{S+j} * scale_1 + base_{S+j})
//   C = sinkhorn(m_{2S+S*j+k} * scale_2 + base_{2S+S*j+k}): row softmax, + hc_eps, then columns and
//       rows divided by (their sum + hc_eps) in turn, columns first and last, `iters` column steps
//   x = rms_norm(sum_j pre_j * streams[j], rounded) * weight
//
// All in f32 or better. y: [tokens, dim]; empty at the first boundary of the model. streams:
// [tokens, S, dim], in place. mix: [tokens, S + S*S] f32: post, then C row by row; read, then
// written. fn: [2 S + S*S, S * dim]. base: [2 S + S*S]. scale: [3]. weight: [dim]. x: [tokens,
// dim].
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct MhcWeights {
  Matrix fn;
  View<const float, 1> base, scale;
};

struct MhcBoundaryArgs {
  Act<2> y;
  Act<3> streams;
  View<float, 2> mix;
  MhcWeights hc;
  View<const Bf16, 1> weight;
  float norm_eps, hc_eps;
  int64_t iters;
  Act<2> x;
};

void MhcBoundary(Context& k, const MhcBoundaryArgs& a);

namespace mhc_boundary {
bool CpuTakes(const MhcBoundaryArgs& a);  // bf16, 4 streams, dim % 16 == 0, fn f32
void Cpu(Context& k, const MhcBoundaryArgs& a);
inline bool CudaTakes(
    const MhcBoundaryArgs& a) {  // bf16, 4 streams, dim % 32 == 0 and <= 8192, fn f32
  const int64_t dim = a.x.shape[1];
  return !a.x.exact() && a.streams.shape[1] == 4 && dim % 32 == 0 && dim <= 8192 &&
         a.hc.fn.format == WeightFormat::kF32;
}
void Cuda(Context& k, const MhcBoundaryArgs& a);
void Ref(Context& k, const MhcBoundaryArgs& a);
}  // namespace mhc_boundary

}  // namespace seacliff
