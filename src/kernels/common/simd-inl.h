// What the cpu rows share, over Highway's vectors: activations in and out, the number formats of
// the checkpoints, sums in a fixed order. Included once for each instruction set (see
// kernels/rms_norm/cpu.cc for the frame of a row), so there is no #pragma once.
#if defined(SEACLIFF_SIMD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SEACLIFF_SIMD_INL
#undef SEACLIFF_SIMD_INL
#else
#define SEACLIFF_SIMD_INL
#endif

#include <cmath>
#include <cstdint>

#include "base/numbers.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Sixteen lanes at most, so that results do not depend on vectors wider than those of AVX-512.
using F32 = hn::CappedTag<float, 16>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using I16 = hn::Rebind<int16_t, F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using I8 = hn::Rebind<int8_t, F32>;
using F16 = hn::Rebind<hwy::float16_t, F32>;
using VF = hn::Vec<F32>;
using VU = hn::Vec<U32>;

inline constexpr F32 kF32;
inline constexpr U32 kU32;

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(kF32)); }

// Values that every lane count divides; callers state it in their row's needs.
inline constexpr int64_t kLaneStep = 16;

HWY_INLINE VF LoadBf16(const Bf16* p) {
  const auto bits = hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(kF32, hn::ShiftLeft<16>(hn::PromoteTo(kU32, bits)));
}

// The bits of v rounded to bf16, in the upper half of each lane; the lower half is rubbish.
HWY_INLINE VU RoundedBits(VF v) {
  const VU u = hn::BitCast(kU32, v);
  const VU odd = hn::And(hn::ShiftRight<16>(u), hn::Set(kU32, 1));
  return hn::Add(hn::Add(u, hn::Set(kU32, 0x7fff)), odd);
}

HWY_INLINE void StoreBf16(VF v, Bf16* p) {
  const auto bits = hn::TruncateTo(U16(), hn::ShiftRight<16>(RoundedBits(v)));
  hn::StoreU(bits, U16(), reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE VF RoundBf16(VF v) {
  return hn::BitCast(kF32, hn::And(RoundedBits(v), hn::Set(kU32, 0xffff0000u)));
}

// e4m3 to f32, each 2^-8 of its value: an e4m3 is an f16 whose exponent is off by 8,
// and the conversion takes care of the subnormal ones. kE4m3Unit puts the factor back.
inline constexpr float kE4m3Unit = 256.0f;
HWY_INLINE VF LoadE4m3(const uint8_t* p) {
  const auto wide = hn::PromoteTo(I16(), hn::LoadU(I8(), reinterpret_cast<const int8_t*>(p)));
  const auto half = hn::And(hn::ShiftLeft<7>(wide), hn::Set(I16(), static_cast<int16_t>(0xbfff)));
  return hn::PromoteTo(kF32, hn::BitCast(F16(), half));
}

// v rounded to the nearest value (ties to even, saturating at `top`) of a format of 23 - kDrop bits
// behind the leading one, whose least normal value is `least`, as f32.
template <int kDrop>
HWY_INLINE VF RoundToFormat(VF v, float top, float least) {
  const VF a = hn::Min(hn::Abs(v), hn::Set(kF32, top));
  const VU u = hn::BitCast(kU32, a);
  const VU odd = hn::And(hn::ShiftRight<kDrop>(u), hn::Set(kU32, 1));
  const VU rounded = hn::Add(hn::Add(u, hn::Set(kU32, (1u << (kDrop - 1)) - 1)), odd);
  const VF normal = hn::BitCast(kF32, hn::And(rounded, hn::Set(kU32, ~((1u << kDrop) - 1))));
  // Below `least` all steps are as wide as just above it: adding 1.5 * 2^23 of them leaves just
  // those.
  const VF magic = hn::Set(kF32, 1.5f * least * static_cast<float>(1 << kDrop));
  const VF small = hn::Sub(hn::Add(a, magic), magic);
  return hn::CopySign(hn::IfThenElse(hn::Lt(a, hn::Set(kF32, least)), small, normal), v);
}
HWY_INLINE VF RoundE4m3(VF v) { return RoundToFormat<20>(v, kE4m3Max, 0x1p-6f); }
HWY_INLINE VF RoundE2m1(VF v) { return RoundToFormat<22>(v, kE2m1Max, 1.0f); }

// Twice the values of the 16 codes of e2m1: small integers.
alignas(16) inline constexpr int8_t kTwiceE2m1[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12};

// The e4m3 codes of values that RoundE4m3 gave.
HWY_INLINE void StoreE4m3(VF v, uint8_t* p) {
  const VU u = hn::BitCast(kU32, v);
  const VF a = hn::Abs(v);
  const VU normal = hn::Sub(hn::ShiftRight<20>(hn::BitCast(kU32, a)), hn::Set(kU32, 120 << 3));
  const auto small = hn::BitCast(
      kU32, hn::ConvertTo(I32(), hn::Mul(a, hn::Set(kF32, 0x1p9f))));  // an integer: exact
  const auto is_small = hn::RebindMask(kU32, hn::Lt(a, hn::Set(kF32, 0x1p-6f)));
  const VU code = hn::Or(hn::IfThenElse(is_small, small, normal),
                         hn::And(hn::ShiftRight<24>(u), hn::Set(kU32, 0x80)));
  hn::StoreU(hn::TruncateTo(U8(), code), U8(), p);
}

// The sum of all lanes, by halves.
HWY_INLINE float SumLanes(VF v) { return hn::GetLane(hn::SumOfLanes(kF32, v)); }

// max |x[i]| of count values, count a multiple of kLaneStep.
HWY_INLINE float MaxMagnitude(const float* x, int64_t count) {
  VF m = hn::Zero(kF32);
  for (int64_t i = 0; i < count; i += Lanes()) m = hn::Max(m, hn::Abs(hn::LoadU(kF32, x + i)));
  return hn::GetLane(hn::MaxOfLanes(kF32, m));
}

// x as the e4m3 values with a power-of-two scale would give it back, each divided by that scale,
// which is returned. count a multiple of kLaneStep.
HWY_INLINE float QuantiseE4m3(const float* x, int64_t count, float* values) {
  const float scale = ToFloat(E4m3Scale(MaxMagnitude(x, count)));
  const VF inverse = hn::Set(kF32, 1.0f / scale);  // a power of two: exact
  for (int64_t i = 0; i < count; i += Lanes()) {
    hn::StoreU(RoundE4m3(hn::Mul(hn::LoadU(kF32, x + i), inverse)), kF32, values + i);
  }
  return scale;
}

// RMS norm with a weight of one row of bf16, rounded once; out may be x. dim a multiple of
// kLaneStep.
inline void NormRow(const Bf16* x, const Bf16* weight, int64_t dim, float eps, Bf16* out) {
  VF sum[4] = {hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32)};
  for (int64_t i = 0, step = 0; i < dim; i += Lanes(), ++step) {
    const VF v = LoadBf16(x + i);
    sum[step & 3] = hn::MulAdd(v, v, sum[step & 3]);
  }
  const float square = SumLanes(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
  const VF norm = hn::Set(kF32, 1.0f / std::sqrt(square / static_cast<float>(dim) + eps));
  for (int64_t i = 0; i < dim; i += Lanes()) {
    StoreBf16(hn::Mul(hn::Mul(LoadBf16(x + i), norm), LoadBf16(weight + i)), out + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
