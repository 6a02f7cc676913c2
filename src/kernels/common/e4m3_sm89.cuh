// Pairs of e4m3 to f16: by an instruction where the card has it, from sm_89 on, or else by moving
// bits. Both are exact.
#pragma once

#include <cstdint>

namespace seacliff::cuda {

// What the values that PairsFromE4m3 gives are too small by.
#if __CUDA_ARCH__ >= 890
inline constexpr float kPairUnit = 1.0f;
#else
inline constexpr float kPairUnit = 256.0f;
#endif

// The eight e4m3 of two words, in their order.
__device__ inline void PairsFromE4m3(uint32_t front, uint32_t back, uint32_t (&pairs)[4]) {
#if __CUDA_ARCH__ >= 890
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b;}\n"
      : "=r"(pairs[0]), "=r"(pairs[1])
      : "r"(front));
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b;}\n"
      : "=r"(pairs[2]), "=r"(pairs[3])
      : "r"(back));
#else
  // An e4m3 is an f16 whose exponent is off by 8, subnormal values included.
  const auto two = [](uint32_t wide) { return ((wide & 0x7f007f00u) >> 1) | (wide & 0x80008000u); };
  pairs[0] = two(__byte_perm(front, 0, 0x1404));
  pairs[1] = two(__byte_perm(front, 0, 0x3424));
  pairs[2] = two(__byte_perm(back, 0, 0x1404));
  pairs[3] = two(__byte_perm(back, 0, 0x3424));
#endif
}

}  // namespace seacliff::cuda
