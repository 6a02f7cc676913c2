// Number formats of the checkpoints: bf16, e4m3, e2m1, e8m0, and the block scales made of them
// (spec/model.md 2.10, 3.3). Conversions round to nearest even and e4m3 saturates at 448.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace seacliff {

struct Bf16 {
  uint16_t bits;
};
struct E4m3 {
  uint8_t bits;
};
// A power-of-two scale: 2^(bits - 127); 255 is NaN and unused.
struct E8m0 {
  uint8_t bits;
};

inline float ToFloat(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

inline Bf16 ToBf16(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // NaN
  u += 0x7fffu + ((u >> 16) & 1u);
  return {static_cast<uint16_t>(u >> 16)};
}

inline float RoundToBf16(float x) { return ToFloat(ToBf16(x)); }

inline constexpr float kE4m3Max = 448.0f;
inline constexpr float kE2m1Max = 6.0f;

// All 256 e4m3 values; 0x7f and 0xff are NaN.
inline const std::array<float, 256>& E4m3Table() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t{};
    for (int i = 0; i < 256; ++i) {
      const int exponent = (i >> 3) & 15, mantissa = i & 7;
      float v = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
      if ((i & 0x7f) == 0x7f) v = NAN;
      t[static_cast<size_t>(i)] = (i & 0x80) != 0 ? -v : v;
    }
    return t;
  }();
  return table;
}

inline float ToFloat(E4m3 x) { return E4m3Table()[x.bits]; }

inline E4m3 ToE4m3(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint8_t sign = static_cast<uint8_t>((u >> 24) & 0x80u);
  const float a = std::fabs(x);
  if (!(a == a)) return {static_cast<uint8_t>(sign | 0x7fu)};
  if (a >= kE4m3Max) return {static_cast<uint8_t>(sign | 0x7eu)};
  if (a < 0x1p-6f) {  // subnormal: multiples of 2^-9
    const int q = static_cast<int>(std::nearbyint(a * 0x1p9f));
    return {static_cast<uint8_t>(sign | q)};
  }
  uint32_t v = std::bit_cast<uint32_t>(a);
  v += 0x7ffffu + ((v >> 20) & 1u);  // keep 3 mantissa bits
  const int exponent = static_cast<int>(v >> 23) - 127 + 7;
  const int code = exponent * 8 + static_cast<int>((v >> 20) & 7u);
  return {static_cast<uint8_t>(sign | (code > 0x7e ? 0x7e : code))};
}

inline constexpr std::array<float, 16> kE2m1Table = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,
                                                     4.0f,  6.0f,  -0.0f, -0.5f, -1.0f, -1.5f,
                                                     -2.0f, -3.0f, -4.0f, -6.0f};

// The 4-bit code of x: nearest, ties to the even code, saturating at 6.
inline uint8_t ToE2m1(float x) {
  const uint8_t sign = std::signbit(x) ? 8 : 0;
  const float a = std::fabs(x);
  uint8_t code = 7;
  if (a <= 0.25f)
    code = 0;
  else if (a < 0.75f)
    code = 1;
  else if (a <= 1.25f)
    code = 2;
  else if (a < 1.75f)
    code = 3;
  else if (a <= 2.5f)
    code = 4;
  else if (a < 3.5f)
    code = 5;
  else if (a <= 5.0f)
    code = 6;
  return static_cast<uint8_t>(sign | code);
}

inline float ToFloat(E8m0 s) {
  if (s.bits == 0) return 0x1p-127f;
  return std::bit_cast<float>(static_cast<uint32_t>(s.bits) << 23);
}

// The smallest power of two that is not below v (v > 0, normal), as an e8m0 byte.
inline E8m0 Pow2Ceil(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  return {static_cast<uint8_t>((u >> 23) + ((u & 0x7fffffu) != 0 ? 1u : 0u))};
}

// Block scales of activations and cache entries, from the largest magnitude of the block.
inline E8m0 E4m3Scale(float amax) { return Pow2Ceil(std::fmax(amax, 1e-4f) * (1.0f / kE4m3Max)); }
inline E8m0 E2m1Scale(float amax) {
  return Pow2Ceil(std::fmax(amax, 6.0f * 0x1p-126f) * (1.0f / kE2m1Max));
}

}  // namespace seacliff
