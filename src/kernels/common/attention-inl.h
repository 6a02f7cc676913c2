// What the cpu rows of the attention ops share: rotation, Hadamard transform, cache entries in and
// out, and the product of all heads with a tile of keys. Included as simd-inl.h is.
#if defined(SEACLIFF_ATTENTION_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SEACLIFF_ATTENTION_INL
#undef SEACLIFF_ATTENTION_INL
#else
#define SEACLIFF_ATTENTION_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/common/simd-inl.h"
#include "tensor/buffer.h"
#include "tensor/paged_view.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff {
namespace HWY_NAMESPACE {

inline constexpr int64_t kRotated = 64;  // values at the end of a head that are rotated

// Memory that a thread keeps between calls and that only grows; aligned, never cleared.
class Scratch {
 public:
  float* Floats(int64_t count) {
    if (count * 4 > buffer_.bytes()) buffer_ = Buffer::Host(count * 4 + count / 2 * 4);
    return static_cast<float*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

// Sines and cosines of angles up to 2^20 (a context of a million) to nearly double precision, so
// that they round to the same f32 as the reference's.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void SinCos(D d, V x, V* sin, V* cos) {
  const V one = hn::Set(d, 1.0);
  // x = n pi/2 + r. The first two parts of pi/2 have 33 bits, so that n times them is exact.
  const V n = hn::Round(hn::Mul(x, hn::Set(d, 0x1.45f306dc9c883p-1)));
  V r = hn::Sub(x, hn::Mul(n, hn::Set(d, 0x1.921fb544p0)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(d, 0x1.0b4611a6p-34)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(d, 0x1.3198a2e037073p-69)));
  // Taylor to x^17 and x^16: the next terms are below 2^-58 for |r| <= pi/4.
  const V z = hn::Mul(r, r);
  const double sines[] = {
      1 / 355687428096000., -1 / 1307674368000., 1 / 6227020800., -1 / 39916800.,
      1 / 362880.,          -1 / 5040.,          1 / 120.,        -1 / 6.};
  const double cosines[] = {1 / 20922789888000., -1 / 87178291200., 1 / 479001600., -1 / 3628800.,
                            1 / 40320.,          -1 / 720.,         1 / 24.,        -1 / 2.};
  V s = hn::Set(d, sines[0]), c = hn::Set(d, cosines[0]);
  for (int i = 1; i < 8; ++i) {
    s = hn::MulAdd(s, z, hn::Set(d, sines[i]));
    c = hn::MulAdd(c, z, hn::Set(d, cosines[i]));
  }
  s = hn::MulAdd(hn::Mul(s, z), r, r);
  c = hn::MulAdd(c, z, one);
  // The quadrant, 0 to 3.
  const V q = hn::Sub(n, hn::Mul(hn::Floor(hn::Mul(n, hn::Set(d, 0.25))), hn::Set(d, 4.0)));
  const V two = hn::Set(d, 2.0);
  const auto odd = hn::Or(hn::Eq(q, one), hn::Eq(q, hn::Set(d, 3.0)));
  const auto back = hn::Or(hn::Eq(q, one), hn::Eq(q, two));
  const V sine = hn::IfThenElse(odd, c, s), cosine = hn::IfThenElse(odd, s, c);
  *sin = hn::IfThenElse(hn::Ge(q, two), hn::Neg(sine), sine);
  *cos = hn::IfThenElse(back, hn::Neg(cosine), cosine);
}

// The rotation of a position, made once for all heads of a token.
class Rotation {
 public:
  // `frequencies`: 32, one for each pair of values. The angle is an f32 product by contract.
  // sign -1: back.
  Rotation(const float* frequencies, int64_t position, float sign) {
    using F64 = hn::CappedTag<double, 8>;
    const F64 d;
    const hn::Rebind<float, F64> half;
    const auto at = hn::Set(half, static_cast<float>(position));
    alignas(64) float sin[kRotated / 2], cos[kRotated / 2];
    for (size_t i = 0; i < kRotated / 2; i += hn::Lanes(d)) {
      hn::Vec<F64> s, c;
      SinCos(d, hn::PromoteTo(d, hn::Mul(at, hn::LoadU(half, frequencies + i))), &s, &c);
      hn::Store(hn::DemoteTo(half, s), half, sin + i);
      hn::Store(hn::DemoteTo(half, c), half, cos + i);
    }
    for (int64_t i = 0; i < kRotated / 2; ++i) {
      cos_[2 * i] = cos_[2 * i + 1] = cos[i];
      sin_[2 * i] = -sign * sin[i];
      sin_[2 * i + 1] = sign * sin[i];
    }
  }

  // Rotates x[0..64).
  HWY_INLINE void Apply(float* x) const {
    for (int64_t i = 0; i < kRotated; i += Lanes()) {
      const VF v = hn::LoadU(kF32, x + i);
      const VF turned = hn::Mul(hn::Shuffle2301(v), hn::Load(kF32, sin_ + i));
      hn::StoreU(hn::MulAdd(v, hn::Load(kF32, cos_ + i), turned), kF32, x + i);
    }
  }

 private:
  alignas(64) float cos_[kRotated];
  alignas(64) float sin_[kRotated];  // signs alternate, for the two values of a pair
};

// Walsh-Hadamard transform in natural order, scaled by count^-1/2; count is a power of two and a
// multiple of kLaneStep. The same f32 operations as the reference's, so the same bits.
inline void Hadamard(float* x, int64_t count) {
  // Stages within a vector: the other of a pair, plus or minus this one.
  const I32 d;
  for (int64_t half = 1; half < Lanes(); half *= 2) {
    const auto bit = hn::Set(d, static_cast<int32_t>(half)), lane = hn::Iota(d, 0);
    const auto swap = hn::IndicesFromVec(kF32, hn::Xor(lane, bit));
    const auto upper = hn::RebindMask(kF32, hn::Eq(hn::And(lane, bit), bit));
    const VF sign = hn::IfThenElse(upper, hn::Set(kF32, -1.0f), hn::Set(kF32, 1.0f));
    for (int64_t i = 0; i < count; i += Lanes()) {
      const VF v = hn::LoadU(kF32, x + i);
      hn::StoreU(hn::MulAdd(v, sign, hn::TableLookupLanes(v, swap)), kF32, x + i);
    }
  }
  for (int64_t half = Lanes(); half < count; half *= 2) {
    for (int64_t begin = 0; begin < count; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; i += Lanes()) {
        const VF a = hn::LoadU(kF32, x + i), b = hn::LoadU(kF32, x + i + half);
        hn::StoreU(hn::Add(a, b), kF32, x + i);
        hn::StoreU(hn::Sub(a, b), kF32, x + i + half);
      }
    }
  }
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(count)));
  for (int64_t i = 0; i < count; i += Lanes()) {
    hn::StoreU(hn::Mul(hn::LoadU(kF32, x + i), hn::Set(kF32, scale)), kF32, x + i);
  }
}

// Loads and stores of bf16 rows, rounding; count a multiple of kLaneStep.
HWY_INLINE void LoadRow(const Bf16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += Lanes()) hn::StoreU(LoadBf16(from + i), kF32, to + i);
}
HWY_INLINE void StoreRow(const float* from, int64_t count, Bf16* to) {
  for (int64_t i = 0; i < count; i += Lanes()) StoreBf16(hn::LoadU(kF32, from + i), to + i);
}
HWY_INLINE void RoundRow(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += Lanes()) {
    hn::StoreU(RoundBf16(hn::LoadU(kF32, x + i)), kF32, x + i);
  }
}

// Where an entry stands in its page: a page of n entries is n rows of values, then n of scales.
struct EntryRow {
  uint8_t* values;
  uint8_t* scales;
};
inline EntryRow RowOf(const PagedView& view, int64_t value_bytes, int64_t page, int64_t slot) {
  auto* base = reinterpret_cast<uint8_t*>(view.page(page));
  const int64_t scale_bytes = EntryBytes(view.format, view.dim) - value_bytes;
  return {base + slot * value_bytes, base + view.page_len * value_bytes + slot * scale_bytes};
}
inline EntryRow KvRow(const PagedView& view, int64_t page, int64_t slot) {
  return RowOf(view, view.dim + kRotated, page, slot);
}
inline EntryRow IndexRow(const PagedView& view, int64_t page, int64_t slot) {
  return RowOf(view, view.dim / 2, page, slot);
}

// Values come in slices of 64: one scale, or the rotated values.
inline constexpr int64_t kSlice = 64;

// Slice `g` of KV entries of `dim` values, to out[count][kSlice].
inline void LoadKvSlice(const EntryRow* rows, int64_t count, int64_t dim, int64_t g, float* out) {
  if (g == dim / kSlice - 1) {
    for (int64_t n = 0; n < count; ++n) {
      LoadRow(reinterpret_cast<const Bf16*>(rows[n].values + g * kSlice), kSlice, out + n * kSlice);
    }
    return;
  }
  for (int64_t n = 0; n < count; ++n) {
    const VF scale = hn::Set(kF32, ToFloat(E8m0{rows[n].scales[g]}) * kE4m3Unit);
    for (int64_t i = 0; i < kSlice; i += Lanes()) {
      const VF v = LoadE4m3(rows[n].values + g * kSlice + i);
      hn::Store(hn::Mul(v, scale), kF32, out + n * kSlice + i);
    }
  }
}

inline void StoreKvEntry(const PagedView& view, int64_t page, int64_t slot, const float* x) {
  const EntryRow row = KvRow(view, page, slot);
  const int64_t groups = view.dim / kSlice - 1, nope = groups * kSlice;
  const int64_t scale_bytes = EntryBytes(view.format, view.dim) - view.dim - kRotated;
  std::memset(row.scales, 0, static_cast<size_t>(scale_bytes));
  for (int64_t g = 0; g < groups; ++g) {
    const E8m0 scale = E4m3Scale(MaxMagnitude(x + g * kSlice, kSlice));
    const VF inverse = hn::Set(kF32, 1.0f / ToFloat(scale));  // a power of two: exact
    row.scales[g] = scale.bits;
    for (int64_t i = g * kSlice; i < (g + 1) * kSlice; i += Lanes()) {
      StoreE4m3(RoundE4m3(hn::Mul(hn::LoadU(kF32, x + i), inverse)), row.values + i);
    }
  }
  StoreRow(x + nope, kRotated, reinterpret_cast<Bf16*>(row.values + nope));
}

// The codes of values that RoundE2m1 gave.
HWY_INLINE VU E2m1Codes(VF v) {
  // From 1 on the exponent with the upper mantissa bit is the code plus 252; left are 0 and 0.5.
  const VU bits = hn::ShiftRight<22>(hn::BitCast(kU32, hn::Abs(v)));
  const VU one = hn::Set(kU32, 1), half = hn::Set(kU32, 252);
  const VU code = hn::Max(hn::Sub(hn::Max(bits, half), half), hn::Min(bits, one));
  return hn::Or(code, hn::And(hn::ShiftRight<28>(hn::BitCast(kU32, v)), hn::Set(kU32, 8)));
}

inline constexpr int64_t kGroup = 32;  // e2m1 values of one scale

// x as e2m1 values with a power-of-two scale for each group would give it back.
inline void RoundTripE2m1(float* x, int64_t count) {
  for (int64_t g = 0; g < count; g += kGroup) {
    const float scale = ToFloat(E2m1Scale(MaxMagnitude(x + g, kGroup)));
    const VF up = hn::Set(kF32, scale), down = hn::Set(kF32, 1.0f / scale);
    for (int64_t i = g; i < g + kGroup; i += Lanes()) {
      const VF v = RoundE2m1(hn::Mul(hn::LoadU(kF32, x + i), down));
      hn::StoreU(hn::Mul(v, up), kF32, x + i);
    }
  }
}

inline void StoreIndexEntry(const PagedView& view, int64_t page, int64_t slot, const float* x) {
  const EntryRow row = IndexRow(view, page, slot);
  for (int64_t g = 0; g < view.dim / kGroup; ++g) {
    const E8m0 scale = E2m1Scale(MaxMagnitude(x + g * kGroup, kGroup));
    const VF inverse = hn::Set(kF32, 1.0f / ToFloat(scale));
    row.scales[g] = scale.bits;
    alignas(64) uint32_t codes[kGroup];
    for (int64_t i = 0; i < kGroup; i += Lanes()) {
      const VF v = RoundE2m1(hn::Mul(hn::LoadU(kF32, x + g * kGroup + i), inverse));
      hn::Store(E2m1Codes(v), kU32, codes + i);
    }
    for (int64_t i = 0; i < kGroup / 2; ++i) {
      row.values[g * kGroup / 2 + i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
    }
  }
}

// An index entry of `dim` values as f32. out is aligned.
HWY_INLINE void LoadIndexEntry(const EntryRow& row, int64_t dim, float* out) {
  // The scale takes the half of the table's values back.
  const hn::FixedTag<int8_t, 16> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto table = hn::Load(d, kTwiceE2m1);
  alignas(16) int8_t twice[kGroup];
  for (int64_t g = 0; g < dim / kGroup; ++g) {
    const auto pairs = hn::LoadU(du, row.values + g * kGroup / 2);
    const auto low = hn::BitCast(d, hn::And(pairs, hn::Set(du, 15)));
    const auto high = hn::BitCast(d, hn::ShiftRight<4>(pairs));
    const auto even = hn::TableLookupBytes(table, low), odd = hn::TableLookupBytes(table, high);
    hn::Store(hn::InterleaveLower(d, even, odd), d, twice);
    hn::Store(hn::InterleaveUpper(d, even, odd), d, twice + 16);
    const VF scale = hn::Set(kF32, 0.5f * ToFloat(E8m0{row.scales[g]}));
    for (int64_t i = 0; i < kGroup; i += Lanes()) {
      const auto v = hn::ConvertTo(kF32, hn::PromoteTo(I32(), hn::LoadU(I8(), twice + i)));
      hn::Store(hn::Mul(v, scale), kF32, out + g * kGroup + i);
    }
  }
}

// Heads stand side by side in the lanes of vectors, in units of 16; the last ones may be none.
inline constexpr int64_t kHeadUnit = kLaneStep;
inline int64_t PaddedHeads(int64_t heads) {
  return (heads + kHeadUnit - 1) / kHeadUnit * kHeadUnit;
}

// out[d][h] = q[h][d] for all heads of a token; missing heads are zero. dim a multiple of 4.
inline void TransposeHeads(const Bf16* q, int64_t heads, int64_t dim, float* out) {
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<uint16_t, 4> d16;
  const hn::RebindToUnsigned<decltype(d)> d32;
  const int64_t padded = PaddedHeads(heads);
  const auto load = [&](int64_t h, int64_t i) {
    if (h >= heads) return hn::Zero(d);
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(q + h * dim + i));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
  };
  for (int64_t h = 0; h < padded; h += 4) {
    for (int64_t i = 0; i < dim; i += 4) {
      const auto r0 = load(h, i), r1 = load(h + 1, i), r2 = load(h + 2, i), r3 = load(h + 3, i);
      const auto even_low = hn::InterleaveLower(d, r0, r2),
                 odd_low = hn::InterleaveLower(d, r1, r3);
      const auto even_up = hn::InterleaveUpper(d, r0, r2), odd_up = hn::InterleaveUpper(d, r1, r3);
      float* to = out + i * padded + h;
      hn::Store(hn::InterleaveLower(d, even_low, odd_low), d, to);
      hn::Store(hn::InterleaveUpper(d, even_low, odd_low), d, to + padded);
      hn::Store(hn::InterleaveLower(d, even_up, odd_up), d, to + 2 * padded);
      hn::Store(hn::InterleaveUpper(d, even_up, odd_up), d, to + 3 * padded);
    }
  }
}

// Vectors of a unit, and keys at a time: their product fills the registers with sums.
inline constexpr int kUnitVecs = static_cast<int>(kHeadUnit / hn::MaxLanes(F32()));
inline constexpr int kKeyBlock = hn::MaxLanes(F32()) == 16 ? 16 : 4;

// out[key][h] (+)= sum_d keys[key][d] q[d][h] over kKeyBlock keys and one unit of heads, each sum
// in ascending order of d.
HWY_INLINE void BlockProducts(const float* HWY_RESTRICT q, int64_t heads,
                              const float* HWY_RESTRICT keys, int64_t depth, bool add,
                              float* HWY_RESTRICT out) {
  VF sum[kKeyBlock][kUnitVecs];
#pragma GCC unroll 16
  for (int n = 0; n < kKeyBlock; ++n) {
#pragma GCC unroll 4
    for (int v = 0; v < kUnitVecs; ++v) sum[n][v] = hn::Zero(kF32);
  }
  for (int64_t d = 0; d < depth; ++d) {
    VF unit[kUnitVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kUnitVecs; ++v) unit[v] = hn::Load(kF32, q + d * heads + v * Lanes());
#pragma GCC unroll 16
    for (int n = 0; n < kKeyBlock; ++n) {
      const VF key = hn::Set(kF32, keys[n * depth + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kUnitVecs; ++v) sum[n][v] = hn::MulAdd(key, unit[v], sum[n][v]);
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < kKeyBlock; ++n) {
#pragma GCC unroll 4
    for (int v = 0; v < kUnitVecs; ++v) {
      float* to = out + n * heads + v * Lanes();
      hn::Store(add ? hn::Add(hn::Load(kF32, to), sum[n][v]) : sum[n][v], kF32, to);
    }
  }
}

// The same for `count` keys, rounded up to whole blocks, and all (padded) heads. What the tile
// holds behind its keys must be numbers, and out has room for their products.
inline void KeyProducts(const float* q, int64_t heads, const float* keys, int64_t count,
                        int64_t depth, bool add, float* out) {
  for (int64_t h = 0; h < heads; h += kHeadUnit) {
    for (int64_t n = 0; n < count; n += kKeyBlock) {
      BlockProducts(q + h, heads, keys + n * depth, depth, add, out + n * heads + h);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
