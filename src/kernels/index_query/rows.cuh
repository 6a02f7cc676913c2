// Rotation, the Hadamard transform and e2m1 scales of a row of 64, 128 or 256 values that a warp
// holds, each lane kValues neighbouring ones: index queries and index keys go through all three.
#pragma once

#include "kernels/common/cuda.cuh"

namespace seacliff::cuda {

inline constexpr int kRotated = 64;  // values that are rotated, the last of a row

// Cosine and sine of the kValues / 2 pairs whose frequencies these are. Angles reach the length of
// the context, so the fast functions will not do.
template <int kValues>
__device__ inline void Turns(int64_t position, const float* frequencies,
                             float2 (&turns)[kValues / 2]) {
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    const float angle = __fmul_rn(static_cast<float>(position), frequencies[i]);
    sincosf(angle, &turns[i].y, &turns[i].x);
  }
}

template <int kValues>
__device__ inline void RotateValues(const float2 (&turns)[kValues / 2], float (&v)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    const float a = v[2 * i], b = v[2 * i + 1];
    v[2 * i] = a * turns[i].x - b * turns[i].y;
    v[2 * i + 1] = a * turns[i].y + b * turns[i].x;
  }
}

// bf16 values; `row` is aligned to them all.
template <int kValues>
__device__ inline void LoadValues(const Bf16* row, float (&v)[kValues]) {
  using Word =
      std::conditional_t<kValues == 2, uint1, std::conditional_t<kValues == 4, uint2, uint4>>;
  union {
    Word word;
    uint32_t pairs[kValues / 2];
  };
  word = *reinterpret_cast<const Word*>(row);
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    v[2 * i] = LowOf(pairs[i]);
    v[2 * i + 1] = HighOf(pairs[i]);
  }
}
template <int kValues>
__device__ inline void StoreValues(Bf16* row, const float (&v)[kValues]) {
  using Word =
      std::conditional_t<kValues == 2, uint1, std::conditional_t<kValues == 4, uint2, uint4>>;
  union {
    Word word;
    uint32_t pairs[kValues / 2];
  };
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    pairs[i] = Bf16Pair(v[2 * i], v[2 * i + 1]);
  }
  *reinterpret_cast<Word*>(row) = word;
}

// The orthonormal transform of a warp's row, natural order.
template <int kValues>
__device__ inline void HadamardWarp(float (&v)[kValues]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 1; half < kValues; half *= 2) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      if ((i & half) != 0) continue;
      const float a = v[i], b = v[i + half];
      v[i] = a + b;
      v[i + half] = a - b;
    }
  }
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const float other = __shfl_xor_sync(0xffffffffu, v[i], offset);
      v[i] = (lane & offset) != 0 ? other - v[i] : v[i] + other;
    }
  }
  // (32 kValues)^-1/2 in f32.
  constexpr float kScale = kValues == 2 ? 0.125f : kValues == 4 ? 0.08838834764831845f : 0.0625f;
  static_assert(kValues == 2 || kValues == 4 || kValues == 8);
#pragma unroll
  for (int i = 0; i < kValues; ++i) v[i] *= kScale;
}

// The scale code of the 32 neighbouring values that the lane's own belong to.
template <int kValues>
__device__ inline uint8_t E2m1WarpScale(const float (&v)[kValues]) {
  float top = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) top = fmaxf(top, fabsf(v[i]));
#pragma unroll
  for (int offset = 1; offset < 32 / kValues; offset *= 2) {
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, offset));
  }
  return E2m1ScaleCode(top);
}

}  // namespace seacliff::cuda
