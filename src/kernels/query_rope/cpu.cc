// cpu row of query_rope. It rounds wherever ref does.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/query_rope/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <cmath>

#include "kernels/common/attention-inl.h"
#include "kernels/query_rope/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::query_rope {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

// The inverse root mean square of a head, each step rounded.
float Norm(const Bf16* q, int64_t dim, float eps) {
  VF sum[4] = {hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32)};
  for (int64_t i = 0, step = 0; i < dim; i += Lanes(), ++step) {
    const VF v = LoadBf16(q + i);
    sum[step & 3] = hn::Add(sum[step & 3], RoundBf16(hn::Mul(v, v)));
  }
  const float total = SumLanes(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
  const float mean = RoundToBf16(total / static_cast<float>(dim));
  return RoundToBf16(1.0f / std::sqrt(RoundToBf16(mean + eps)));
}

void Head(Bf16* q, int64_t dim, float eps, const Rotation& rotation) {
  const VF norm = hn::Set(kF32, Norm(q, dim, eps));
  const int64_t still = dim - kRotated;
  for (int64_t i = 0; i < still; i += Lanes()) StoreBf16(hn::Mul(LoadBf16(q + i), norm), q + i);
  alignas(64) float last[kRotated];
  for (int64_t i = 0; i < kRotated; i += Lanes()) {
    hn::Store(RoundBf16(hn::Mul(LoadBf16(q + still + i), norm)), kF32, last + i);
  }
  rotation.Apply(last);
  StoreRow(last, kRotated, q + still);
}

void Run(Context& k, const QueryRopeArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  auto* q = static_cast<Bf16*>(a.q.data);
  // A token of all the heads of a model takes about as long as waking a thread.
  const int64_t grain = std::max<int64_t>(1, 32768 / (heads * dim));
  k.pool().For(tokens, grain, [=, &a](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Rotation rotation(a.frequencies.data, a.positions(t), 1);
      for (int64_t h = 0; h < heads; ++h) Head(q + (t * heads + h) * dim, dim, a.eps, rotation);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::query_rope
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::query_rope {

HWY_EXPORT(Run);

bool CpuTakes(const QueryRopeArgs& a) {
  return !a.q.exact() && a.q.shape[2] % 16 == 0 && a.q.shape[2] >= 64 &&
         a.frequencies.shape[0] == 32;
}
void Cpu(Context& k, const QueryRopeArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::query_rope
#endif
