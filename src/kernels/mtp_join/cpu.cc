// cpu row of mtp_join.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mtp_join/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include "kernels/common/simd-inl.h"
#include "kernels/mtp_join/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::mtp_join {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

void Run(Context& k, const MtpJoinArgs& a) {
  const int64_t streams = a.streams.shape[1], dim = a.streams.shape[2];
  const auto* x = static_cast<const Bf16*>(a.x.data);
  auto* out = static_cast<Bf16*>(a.streams.data);
  k.pool().For(a.streams.shape[0], 4, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin * streams; row < end * streams; ++row) {
      const Bf16* from = x + row / streams * dim;
      Bf16* to = out + row * dim;
      for (int64_t i = 0; i < dim; i += Lanes()) {
        StoreBf16(hn::Add(LoadBf16(to + i), LoadBf16(from + i)), to + i);
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::mtp_join
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::mtp_join {

HWY_EXPORT(Run);

void Cpu(Context& k, const MtpJoinArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::mtp_join
#endif
