// cpu row of rms_norm.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include "kernels/common/simd-inl.h"
#include "kernels/rms_norm/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::rms_norm {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

void Run(Context& k, const RmsNormArgs& a) {
  const int64_t dim = a.x.shape[1];
  const auto* x = static_cast<const Bf16*>(a.x.data);
  auto* out = static_cast<Bf16*>(a.out.data);
  k.pool().For(a.x.shape[0], 16, [=, &a](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      NormRow(x + t * dim, a.weight.data, dim, a.eps, out + t * dim);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::rms_norm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::rms_norm {

HWY_EXPORT(Run);

bool CpuTakes(const RmsNormArgs& a) { return !a.x.exact() && a.x.shape[1] % 16 == 0; }
void Cpu(Context& k, const RmsNormArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::rms_norm
#endif
