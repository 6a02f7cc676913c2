// query_rope: the weightless norm of each query head and its rotation (spec/model.md 2.4, 1.2).
//
//   q[t, h, :] <- q[t, h, :] * rsqrt(mean_i(q[t, h, i]^2) + eps)
//   q[t, h, last 64] <- rotated by positions[t]
//
// In place. q: [tokens, heads, head_dim], bf16 or f32. frequencies: [32], radians a position.
// Rounding in bf16, as the official code does it: each square, the mean, mean + eps, its inverse
// root, and the product are bf16 each (ref); faster rows may keep f32 up to the product.
#pragma once

#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

struct QueryRopeArgs {
  Act<3> q;
  View<const int32_t, 1> positions;
  View<const float, 1> frequencies;
  float eps;
};

void QueryRope(Context& k, const QueryRopeArgs& a);

namespace query_rope {
bool CpuTakes(const QueryRopeArgs& a);  // bf16
void Cpu(Context& k, const QueryRopeArgs& a);
// bf16, dim % 64 == 0 up to 1,024, 32 frequencies
inline bool CudaTakes(const QueryRopeArgs& a) {
  const int64_t dim = a.q.shape[2];
  return !a.q.exact() && dim % 64 == 0 && dim >= 64 && dim <= 1024 && a.frequencies.shape[0] == 32;
}
void Cuda(Context& k, const QueryRopeArgs& a);
void Ref(Context& k, const QueryRopeArgs& a);
}  // namespace query_rope

}  // namespace seacliff
