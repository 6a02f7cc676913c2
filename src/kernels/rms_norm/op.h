// rms_norm: root mean square norm with a weight (spec/model.md 2.2).
//
//   out[t, :] = x[t, :] * rsqrt(mean_i(x[t, i]^2) + eps) * weight[:]
//
// All in f32 (weight included); one rounding, to out's dtype. x, out: [tokens, dim], same dtype,
// may be the same memory. weight: [dim].
#pragma once

#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

struct RmsNormArgs {
  Act<2> x;
  View<const Bf16, 1> weight;
  float eps;
  Act<2> out;
};

void RmsNorm(Context& k, const RmsNormArgs& a);

namespace rms_norm {
bool CpuTakes(const RmsNormArgs& a);  // bf16, dim % 16 == 0
void Cpu(Context& k, const RmsNormArgs& a);
inline bool CudaTakes(const RmsNormArgs& a) { return !a.x.exact(); }
// Whether it is read and written 16 bytes at a time.
inline bool IsWide(const RmsNormArgs& a) {
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  return a.x.shape[1] % 8 == 0 && aligned(a.x.data) && aligned(a.weight.data) &&
         aligned(a.out.data);
}
void Cuda(Context& k, const RmsNormArgs& a);
void Ref(Context& k, const RmsNormArgs& a);
}  // namespace rms_norm

}  // namespace seacliff
