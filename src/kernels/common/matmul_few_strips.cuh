// The kernel of matmul_few.cu for more tokens than a warp can hold x of: it walks the rows in
// strips, and for each strip the columns from the first to the last, so that x of one block of
// columns at a time is enough. Sums stay in shared memory until all columns have been added, in
// ascending order.
#pragma once

#include "kernels/common/matmul_few_units.cuh"

namespace seacliff::cuda::few {

// A unit's sums of eight tokens: a token's 16 rows stand side by side. The distance keeps banks
// apart, also when a warp stores what the tensor cores gave.
inline constexpr int kTokenSums = 20, kOctetSums = 8 * kTokenSums;

// Units that a warp multiplies at a time, where registers allow it.
__host__ __device__ constexpr int StripTwos(int octets) { return octets <= 2 ? 2 : 1; }
// Bytes of one of two buffers of sums, and of the running sums.
__host__ __device__ constexpr int StripSumBytes(int octets, int tiles_at_once) {
  return tiles_at_once * kWarps * octets * kOctetSums * 4;
}
__host__ __device__ constexpr int64_t StripTotalBytes(int octets, int strip, int row_warps) {
  return int64_t{strip} * row_warps * octets * 128 * 4;
}

template <Kind K, int kOctets, int kStages>
__device__ __forceinline__ void MultiplyStrips(const Part& part, const Work& p, uint8_t* shared) {
  constexpr int kTileSums = kOctets * 128, kTwos = StripTwos(kOctets);
  // ---- shared memory ----
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  uint8_t* ring = shared + warp * kStages * kStepBytes;
  auto* sums = reinterpret_cast<float*>(shared + FeedBytes(kStages));
  const int buffer_sums = StripSumBytes(kOctets, p.tiles_at_once) / 4;
  float* totals = sums + 2 * buffer_sums;
  uint8_t* scales = shared + p.scales_at;

  // ---- load: weights, then what earlier launches have written ----
  const int column_warp = warp & (p.column_warps - 1), row_warp = warp >> p.column_warps_log;
  const int index = static_cast<int>(blockIdx.x) - part.first_block;
  const int first_tile = index * part.tiles + min(index, part.more);
  const int end_tile = first_tile + part.tiles + (index < part.more ? 1 : 0);
  Feed<K, kStages, kTwos> feed(part, p, first_tile + row_warp, end_tile - first_tile - row_warp,
                               p.strip, column_warp, ring);
#pragma unroll
  for (int i = 0; i < kStages; ++i) feed.Next();
  int first_scale = 0;
  if constexpr (K != Kind::kBf16) {
    first_scale = CopyScales(part, p, first_tile, end_tile, scales);
  }
  WaitForEarlier();

  XPart x[kOctets], next_x[kOctets];
  float x_scale[kOctets][2];  // of the lane's columns of results
  const auto fetch = [&](int block) {
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      const int token = o * 8 + lane / 4;
      const bool there = token < p.tokens && block < p.blocks;
      LoadX<K>(there ? part.x + token * p.x_stride + block * kBlock : nullptr,
               p.cols - block * kBlock, next_x[o]);
    }
  };
  const auto prepare = [&] {
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      x[o] = next_x[o];
      x_scale[o][0] = x_scale[o][1] = 1.0f;
      if constexpr (K == Kind::kFp8Both) {
        const float scale = PrepareX(x[o]) * kPairUnit;
        x_scale[o][0] = __shfl_sync(0xffffffffu, scale, lane % 4 * 8);
        x_scale[o][1] = __shfl_sync(0xffffffffu, scale, lane % 4 * 8 + 4);
      }
    }
  };
  // The sums of a unit to where they are added up.
  const auto put = [&](const float(&acc)[kOctets][4], int tile, int block, float* to) {
    float factor[2] = {1.0f, 1.0f};
    if constexpr (K != Kind::kBf16) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        factor[h] = RowFactor(scales, first_scale, part, p, tile * 16 + lane / 4 + 8 * h, block);
      }
    }
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float v = acc[o][e];
        if constexpr (K == Kind::kFp8Both) v = __fmul_rn(v, x_scale[o][e % 2]);
        if constexpr (K != Kind::kBf16) v = __fmul_rn(v, factor[e / 2]);
        to[o * kOctetSums + (lane % 4 * 2 + e % 2) * kTokenSums + lane / 4 + e / 2 * 8] = v;
      }
    }
  };

  int slot = 0;
  float* buffer = sums;
  fetch(column_warp);
  for (int strip = first_tile; strip < end_tile; strip += p.strip << p.row_warps_log) {
    const int strip_end = min(end_tile, strip + (p.strip << p.row_warps_log));
    for (int r = 0; r < p.rounds; ++r) {
      const int block = r * p.column_warps + column_warp;
      const bool active = block < p.blocks;
      prepare();
      // Loads of the next launch's weights would delay those of x.
      if (p.late && strip == first_tile && r == 0 && x_scale[0][0] != -1.0f) LetNextStart();
      // While this block of columns is multiplied, x of the next is on its way.
      fetch((r + 1 < p.rounds ? r + 1 : 0) * p.column_warps + column_warp);
      for (int tile = strip; tile < strip_end; tile += p.tiles_at_once << p.row_warps_log) {
        const int end = min(strip_end, tile + (p.tiles_at_once << p.row_warps_log));
        // ---- compute ----
        float* to = buffer + warp * kOctets * kOctetSums;
        for (int i = tile + row_warp; active && i < end; i += kTwos << p.row_warps_log) {
          if (kTwos == 2 && i + p.row_warps < end) {
            float acc[2][kOctets][4];
            MultiplyUnits<K, 2>(feed, ring, slot, x, acc);
            put(acc[0], i, block, to);
            put(acc[1], i + p.row_warps, block, to + kWarps * kOctets * kOctetSums);
          } else {
            float acc[1][kOctets][4];
            MultiplyUnits<K, 1>(feed, ring, slot, x, acc);
            put(acc[0], i, block, to);
          }
          to += kTwos * kWarps * kOctets * kOctetSums;
        }
        __syncthreads();

        // ---- add up, and store after the last columns ----
        const int ready = min(p.column_warps, p.blocks - (r << p.column_warps_log));
#pragma unroll 2
        for (int n = threadIdx.x; n < (end - tile) * kTileSums; n += kThreads) {
          const int i = n / kTileSums, at = n % kTileSums;
          const int octet = at / 128, token = at / 16 % 8, row = at % 16;
          const int first =
              (i >> p.row_warps_log) * kWarps + ((i & (p.row_warps - 1)) << p.column_warps_log);
          const float* from =
              buffer + (first * kOctets + octet) * kOctetSums + token * kTokenSums + row;
          float* total = totals + (tile + i - strip) * kTileSums + at;
          float sum = r == 0 ? 0.0f : *total;
          if (ready == kWarps) {
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
              sum = __fadd_rn(sum, from[w * kOctets * kOctetSums]);
            }
          } else {
            for (int w = 0; w < ready; ++w) sum = __fadd_rn(sum, from[w * kOctets * kOctetSums]);
          }
          if (r + 1 < p.rounds) {
            *total = sum;
          } else if (octet * 8 + token < p.tokens && (tile + i) * 16 + row < part.rows) {
            StoreResult(part, octet * 8 + token, (tile + i) * 16 + row, sum);
          }
        }
        buffer = buffer == sums ? sums + buffer_sums : sums;
      }
    }
  }
}

template <int kOctets, int kStages>
__global__ void __launch_bounds__(kThreads, kOctets > 1 ? 1 : 2)
    StripKernel(const __grid_constant__ Work p) {
  extern __shared__ __align__(16) uint8_t shared[];
  if (!p.late) LetNextStart();
  const Part& part = PartOfBlock(p);
  switch (part.kind) {
    case Kind::kBf16:
      return MultiplyStrips<Kind::kBf16, kOctets, kStages>(part, p, shared);
    case Kind::kFp8:
      return MultiplyStrips<Kind::kFp8, kOctets, kStages>(part, p, shared);
    case Kind::kFp8Both:
      return MultiplyStrips<Kind::kFp8Both, kOctets, kStages>(part, p, shared);
  }
}

}  // namespace seacliff::cuda::few
