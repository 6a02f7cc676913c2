// mhc_head: the end of the model: the last sub-block goes into the residual streams, and the
// streams of chosen tokens collapse into one vector, normed (spec/model.md 2.3 hc_head, 2.1 step
// 3).
//
//   streams <- post(y) for every token, as in mhc_boundary
//   w_j = sigmoid(m_j * scale + base_j) + hc_eps, m as in mhc_boundary with fn [S, S * dim]
//   x[i, :] = rms_norm(sum_j w_j * streams[rows[i], j], rounded) * weight
//
// y: [tokens, dim], or empty (no post). streams: [tokens, S, dim], in place. mix: [tokens, S +
// S*S]. fn: [S, S * dim]; base: [S]; scale: [1]. rows: token numbers. x: [rows, dim].
#pragma once

#include "kernels/context.h"
#include "kernels/mhc_boundary/op.h"

namespace seacliff {

struct MhcHeadArgs {
  Act<2> y;
  Act<3> streams;
  View<const float, 2> mix;
  MhcWeights hc;
  View<const Bf16, 1> weight;
  float norm_eps, hc_eps;
  View<const int32_t, 1> rows;
  Act<2> x;
};

void MhcHead(Context& k, const MhcHeadArgs& a);

namespace mhc_head {
bool CpuTakes(const MhcHeadArgs& a);  // bf16, 4 streams, dim % 16 == 0, fn f32
void Cpu(Context& k, const MhcHeadArgs& a);
inline bool CudaTakes(const MhcHeadArgs& a) {  // bf16, 4 streams, dim % 32 == 0 and <= 8192, fn f32
  const int64_t dim = a.x.shape[1];
  return !a.x.exact() && a.streams.shape[1] == 4 && dim % 32 == 0 && dim <= 8192 &&
         a.hc.fn.format == WeightFormat::kF32;
}
void Cuda(Context& k, const MhcHeadArgs& a);
void Ref(Context& k, const MhcHeadArgs& a);
}  // namespace mhc_head

}  // namespace seacliff
