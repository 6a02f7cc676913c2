// index_query: the indexer's queries: rotation, Hadamard transform, FP4 rounding
// (spec/model.md 2.9).
//
//   q[t, h, last 64] rotated by positions[t]; q[t, h, :] <- H q[t, h, :]; then rounded to e2m1 with
//   a power-of-two scale for each 32 values, in checkpoint numerics (bf16 q).
//
// In place. q: [tokens, index_heads, index_dim], bf16 or f32; bf16 holds the rounded values
// exactly. In bf16 the rotation and the transform round to bf16 each.
#pragma once

#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

struct IndexQueryArgs {
  Act<3> q;
  View<const int32_t, 1> positions;
  View<const float, 1> frequencies;
};

void IndexQuery(Context& k, const IndexQueryArgs& a);

namespace index_query {
bool CpuTakes(const IndexQueryArgs& a);  // bf16
void Cpu(Context& k, const IndexQueryArgs& a);
// bf16, dim 64, 128 or 256
inline bool CudaTakes(const IndexQueryArgs& a) {
  const int64_t dim = a.q.shape[2];
  return !a.q.exact() && (dim == 64 || dim == 128 || dim == 256) && a.frequencies.shape[0] == 32;
}
void Cuda(Context& k, const IndexQueryArgs& a);
void Ref(Context& k, const IndexQueryArgs& a);
}  // namespace index_query

}  // namespace seacliff
