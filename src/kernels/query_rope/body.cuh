// What a warp of query_rope does (device code): it takes heads of one token, one after the other;
// each lane holds 16-byte pieces of a head. It rounds wherever ref does; only the sum of squares
// has another order.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/query_rope/op.h"

namespace seacliff::query_rope {

using namespace cuda;  // NOLINT: the frame of every CUDA row

inline constexpr int kPiece = 8;  // numbers of a piece; the last 8 pieces are rotated

// ---- types ----

struct Params {
  uint4* q;
  const int32_t* positions;
  const float* frequencies;
  int64_t items;                // (token, run of heads)
  int32_t heads, runs, pieces;  // of a token; of a token; of a head
  int32_t run;                  // heads that a warp takes
  float eps;
};

// `run`: heads that a warp takes.
inline Params ParamsOf(const QueryRopeArgs& a, int64_t run) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], runs = CeilDiv(heads, run);
  return {static_cast<uint4*>(a.q.data),
          a.positions.data,
          a.frequencies.data,
          tokens * runs,
          static_cast<int32_t>(heads),
          static_cast<int32_t>(runs),
          static_cast<int32_t>(a.q.shape[2] / kPiece),
          static_cast<int32_t>(run),
          a.eps};
}

union Piece {
  uint4 bits;
  uint32_t pairs[kPiece / 2];
};

__device__ inline float RoundedSquare(float v) { return RoundBf16(__fmul_rn(v, v)); }

// A warp. kPieces: most pieces of a lane.
template <int kPieces>
__device__ inline void NormAndRotate(const Params& p, int64_t item) {
  const int lane = threadIdx.x % kWarp;
  LetNextStart();
  const float frequency = p.frequencies[lane];
  WaitForEarlier();
  if (item >= p.items) return;
  const int64_t token = item / p.runs;
  const int first = static_cast<int>(item % p.runs) * p.run;

  // The first head is on its way while sines are computed, each next one as soon as the last is
  // stored.
  const int end = min(first + p.run, p.heads);
  const auto row_of = [&](int head) { return p.q + (token * p.heads + head) * p.pieces; };
  Piece v[kPieces];
  const auto load = [&](int head) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int at = lane + i * kWarp;
      if (at < p.pieces) v[i].bits = row_of(head)[at];
    }
  };
  const auto position = static_cast<float>(p.positions[token]);
  load(first);

  // A lane turns one pair's frequency into cosine and sine; the four that it needs itself, if it
  // holds a rotated piece at all, come from others.
  float own_cos, own_sin, turn_cos[4], turn_sin[4];
  sincosf(__fmul_rn(position, frequency), &own_sin, &own_cos);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    turn_cos[i] = __shfl_sync(0xffffffffu, own_cos, 4 * (lane % 8) + i);
    turn_sin[i] = __shfl_sync(0xffffffffu, own_sin, 4 * (lane % 8) + i);
  }

  for (int head = first; head < end; ++head) {
    // ---- compute ----
    uint4* row = row_of(head);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int at = lane + i * kWarp;
      if (at < p.pieces) {
#pragma unroll
        for (const uint32_t pair : v[i].pairs) {
          sum += RoundedSquare(LowOf(pair)) + RoundedSquare(HighOf(pair));
        }
      }
    }
    const float mean = RoundBf16(WarpSum(sum) / static_cast<float>(p.pieces * kPiece));
    const float norm = RoundBf16(1.0f / sqrtf(RoundBf16(mean + p.eps)));

    // ---- store ----
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int at = lane + i * kWarp;
      if (at >= p.pieces) continue;
      const bool rotated = at >= p.pieces - 8;
#pragma unroll
      for (int j = 0; j < kPiece / 2; ++j) {
        uint32_t& pair = v[i].pairs[j];
        const float a = RoundBf16(LowOf(pair) * norm), b = RoundBf16(HighOf(pair) * norm);
        const float c = turn_cos[j], s = turn_sin[j];
        pair = rotated
                   ? Bf16Pair(__fmul_rn(a, c) - __fmul_rn(b, s), __fmul_rn(a, s) + __fmul_rn(b, c))
                   : Bf16Pair(a, b);
      }
      row[at] = v[i].bits;
    }
    if (head + 1 < end) load(head + 1);
  }
}

}  // namespace seacliff::query_rope
