// What the cuda rows of mhc_boundary and mhc_head share (spec/model.md 2.3): four residual streams
// of bf16 take in the sub-block before them (post), and each token's products with the rows of fn
// and its squares are summed. What follows the sums stands in mhc_finish.cuh.
//
// An f32 weight is the exact sum of three bf16 numbers, so tensor cores multiply exactly. The order
// of a sum never depends on the number of tokens: 32 columns of a stream in the tensor cores, the
// four streams of a piece, the pieces of a group, the groups. SumPieces gives a piece to a block,
// so that all multiprocessors read fn even for one token; SumGroups gives a group to a block of
// many tokens.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/common/mhc.h"

namespace seacliff::cuda::mhc {

inline constexpr int kStreams = 4;
inline constexpr int kMixWidth = kStreams + kStreams * kStreams;  // post, then C row by row
inline constexpr int kPiece = kMhcPiece;                          // columns of each stream
inline constexpr int kGroup = kMhcGroup;                          // pieces
inline constexpr int kTileTokens = 16;
inline constexpr int64_t kMaxDim = 8192;
inline constexpr int kMaxGroups = kMaxDim / (kPiece * kGroup);

// Tiles of 8 rows of fn, and floats of a token's sums: the rows' first, then the squares.
template <int kRows>
inline constexpr int kTiles = (kRows + 7) / 8;
template <int kRows>
inline constexpr int kSquares = 8 * kTiles<kRows>;
template <int kRows>
inline constexpr int kSlot = kSquares<kRows> + 8;

struct SumsParams {
  const Bf16* y;  // null: no post
  Bf16* streams;
  const float* mix;
  int64_t mix_stride;
  const float* fn;
  int64_t tokens, dim;
  float* sums;  // [tokens, parts, kSlot]; a part is a piece or a group
};

// ---- pieces of both kernels: a lane holds 8 columns of the tokens lane / 4 and lane / 4 + 8 ----

struct Words {
  uint32_t w[4];
};
__device__ inline Words LoadWords(const Bf16* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ inline void StoreWords(Bf16* p, const Words& v) {
  *reinterpret_cast<uint4*>(p) = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
}

// One value of a stream after post; c: the column of C that leads to it.
__device__ inline float Posted(float y, float post, const float (&v)[kStreams],
                               const float (&c)[kStreams]) {
  float sum = __fmul_rn(c[0], v[0]);
#pragma unroll
  for (int j = 1; j < kStreams; ++j) sum = __fmaf_rn(c[j], v[j], sum);
  return __fmaf_rn(post, y, sum);
}

// The sum of a token's squares over a piece of one stream, in all four lanes that hold it.
__device__ inline float SquareSum(const Words& x) {
  float sum = 0;
#pragma unroll
  for (uint32_t two : x.w) {
    sum = __fmaf_rn(LowOf(two), LowOf(two), sum);
    sum = __fmaf_rn(HighOf(two), HighOf(two), sum);
  }
  sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 1));
  return __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 2));
}

// Eight weights as three times eight bf16, the largest first.
struct SplitWeights {
  Words part[3];
};
struct Eight {
  float4 a, b;
};
// Not by __ldg: the compiler takes that for a load that may come after WaitForEarlier.
__device__ inline Eight LoadEight(const float* from) {
  const auto* four = reinterpret_cast<const float4*>(from);
  return {four[0], four[1]};
}
__device__ inline SplitWeights Split(const Eight& weights) {
  const float4 a = weights.a, b = weights.b;
  float rest[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  SplitWeights split;
#pragma unroll
  for (int q = 0; q < 3; ++q) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t two = Bf16Pair(rest[2 * i], rest[2 * i + 1]);
      split.part[q].w[i] = two;
      rest[2 * i] = __fsub_rn(rest[2 * i], LowOf(two));
      rest[2 * i + 1] = __fsub_rn(rest[2 * i + 1], HighOf(two));
    }
  }
  return split;
}

// The products of 32 columns of one stream of 16 tokens with 8 rows of fn. Which column stands at
// which k of the tensor cores does not matter, as long as both factors agree: a lane's 8 columns
// are words 0 and 1 of the first k step and words 2 and 3 of the second. The smallest parts come
// first, so that a unit that truncates loses least.
__device__ inline void Multiply(float (&d)[4], const Words (&x)[2], const SplitWeights& fn) {
#pragma unroll
  for (float& v : d) v = 0;
#pragma unroll
  for (int q = 2; q >= 0; --q) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      MmaBf16(d, {x[0].w[i], x[1].w[i], x[0].w[i + 1], x[1].w[i + 1]},
              {fn.part[q].w[i], fn.part[q].w[i + 1]});
    }
  }
}

// ---- the sums: a block takes one piece of 16 tokens, a warp one of its streams ----

template <int kRows, bool kPost>
__global__ void __launch_bounds__(kStreams* kWarp) SumPieces(const SumsParams p) {
  __shared__ float parts[kStreams][kTileTokens][kSlot<kRows>];

  LetNextStart();
  const int stream = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t column = int64_t{blockIdx.x} * kPiece + lane % 4 * 8;
  const int64_t first = int64_t{blockIdx.y} * kTileTokens;

  Eight weights[kTiles<kRows>] = {};
#pragma unroll
  for (int tile = 0; tile < kTiles<kRows>; ++tile) {
    const int row = tile * 8 + lane / 4;
    if (row < kRows) {
      weights[tile] = LoadEight(p.fn + (int64_t{row} * kStreams + stream) * p.dim + column);
    }
  }
  WaitForEarlier();

  // All loads of both tokens before the first use.
  Words x[2] = {}, y[2] = {}, in[2][kStreams] = {};
  float c[2][kStreams] = {}, post[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t token = first + lane / 4 + 8 * h;
    if (token >= p.tokens) continue;
    const Bf16* at = p.streams + token * kStreams * p.dim + column;
    if constexpr (!kPost) {
      x[h] = LoadWords(at + stream * p.dim);
    } else {
      const float* mix = p.mix + token * p.mix_stride;
      y[h] = LoadWords(p.y + token * p.dim + column);
      post[h] = mix[stream];
#pragma unroll
      for (int j = 0; j < kStreams; ++j) {
        in[h][j] = LoadWords(at + j * p.dim);
        c[h][j] = mix[kStreams + j * kStreams + stream];
      }
    }
  }
  if constexpr (kPost) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float low[kStreams], high[kStreams];
#pragma unroll
        for (int j = 0; j < kStreams; ++j) {
          low[j] = LowOf(in[h][j].w[i]);
          high[j] = HighOf(in[h][j].w[i]);
        }
        x[h].w[i] = Bf16Pair(Posted(LowOf(y[h].w[i]), post[h], low, c[h]),
                             Posted(HighOf(y[h].w[i]), post[h], high, c[h]));
      }
    }
  }
  if constexpr (kPost) {
    __syncthreads();  // every warp has read all streams
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t token = first + lane / 4 + 8 * h;
      if (token < p.tokens) {
        StoreWords(p.streams + (token * kStreams + stream) * p.dim + column, x[h]);
      }
    }
  }

#pragma unroll
  for (int tile = 0; tile < kTiles<kRows>; ++tile) {
    float d[4];
    Multiply(d, x, Split(weights[tile]));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      parts[stream][lane / 4 + i / 2 * 8][tile * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float square = SquareSum(x[h]);
    if (lane % 4 == 0) parts[stream][lane / 4 + 8 * h][kSquares<kRows>] = square;
  }
  __syncthreads();

  for (int i = threadIdx.x; i < kTileTokens * kSlot<kRows>; i += kStreams * kWarp) {
    const int row = i / kSlot<kRows>, slot = i % kSlot<kRows>;
    if (first + row >= p.tokens || slot > kSquares<kRows>) continue;
    float sum = parts[0][row][slot];
    for (int s = 1; s < kStreams; ++s) sum = __fadd_rn(sum, parts[s][row][slot]);
    p.sums[((first + row) * gridDim.x + blockIdx.x) * kSlot<kRows> + slot] = sum;
  }
}

// ---- the same sums: a block takes one group of kWarps * 16 tokens, a warp 16 of them ----

template <int kRows, bool kPost, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp, 16 / kWarps) SumGroups(const SumsParams p) {
  constexpr int kBlockTokens = kWarps * kTileTokens;
  // Weights as Multiply takes them, of the piece at hand and the next; 46 KB at most with the mix.
  __shared__ uint4 split[2][kStreams][kTiles<kRows>][3][kWarp];
  __shared__ float4 mix[kPost ? kBlockTokens : 1][kMixWidth / 4];

  const int lane = threadIdx.x % kWarp, local = threadIdx.x / kWarp * kTileTokens + lane / 4;
  const int64_t first = int64_t{blockIdx.y} * kBlockTokens;
  const int64_t pieces = p.dim / kPiece, begin = int64_t{blockIdx.x} * kGroup;
  const int64_t end = min(begin + kGroup, pieces);

  LetNextStart();
  const auto stage = [&](int64_t piece, int buffer) {
    for (int i = threadIdx.x; i < kStreams * kTiles<kRows> * kWarp; i += kWarps * kWarp) {
      const int of = i % kWarp, tile = i / kWarp % kTiles<kRows>,
                stream = i / (kWarp * kTiles<kRows>);
      const int row = tile * 8 + of / 4;
      SplitWeights fn = {};
      if (row < kRows) {
        fn = Split(LoadEight(p.fn + (int64_t{row} * kStreams + stream) * p.dim + piece * kPiece +
                             of % 4 * 8));
      }
#pragma unroll
      for (int q = 0; q < 3; ++q) {
        const uint32_t(&w)[4] = fn.part[q].w;
        split[buffer][stream][tile][q][of] = make_uint4(w[0], w[1], w[2], w[3]);
      }
    }
  };
  stage(begin, 0);
  WaitForEarlier();
  if constexpr (kPost) {
    auto* to = reinterpret_cast<float*>(mix);
    for (int i = threadIdx.x; i < kBlockTokens * kMixWidth; i += kWarps * kWarp) {
      const int64_t token = first + i / kMixWidth;
      if (token < p.tokens) to[i] = p.mix[token * p.mix_stride + i % kMixWidth];
    }
  }

  float total[kTiles<kRows>][4] = {}, total_square[2] = {};
  for (int64_t piece = begin; piece < end; ++piece) {
    const int buffer = static_cast<int>(piece - begin) % 2;
    const int64_t column = piece * kPiece + lane % 4 * 8;
    Words x[kStreams][2] = {}, y[2] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t token = first + local + 8 * h;
      if (token >= p.tokens) continue;
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        x[s][h] = LoadWords(p.streams + (token * kStreams + s) * p.dim + column);
      }
      if constexpr (kPost) y[h] = LoadWords(p.y + token * p.dim + column);
    }
    // This piece's weights have arrived, and nobody reads those of the piece before any more.
    __syncthreads();
    if (piece + 1 < end) stage(piece + 1, 1 - buffer);

    if constexpr (kPost) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (first + local + 8 * h >= p.tokens) continue;
        float m[kMixWidth];
#pragma unroll
        for (int i = 0; i < kMixWidth / 4; ++i) {
          const float4 four = mix[local + 8 * h][i];
          m[4 * i] = four.x, m[4 * i + 1] = four.y, m[4 * i + 2] = four.z, m[4 * i + 3] = four.w;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float low[kStreams], high[kStreams];
#pragma unroll
          for (int j = 0; j < kStreams; ++j) {
            low[j] = LowOf(x[j][h].w[i]);
            high[j] = HighOf(x[j][h].w[i]);
          }
#pragma unroll
          for (int s = 0; s < kStreams; ++s) {
            const float c[kStreams] = {m[4 + s], m[8 + s], m[12 + s], m[16 + s]};
            x[s][h].w[i] = Bf16Pair(Posted(LowOf(y[h].w[i]), m[s], low, c),
                                    Posted(HighOf(y[h].w[i]), m[s], high, c));
          }
        }
#pragma unroll
        for (int s = 0; s < kStreams; ++s) {
          StoreWords(p.streams + ((first + local + 8 * h) * kStreams + s) * p.dim + column,
                     x[s][h]);
        }
      }
    }

    float sum[kTiles<kRows>][4], square[2];
#pragma unroll
    for (int s = 0; s < kStreams; ++s) {
#pragma unroll
      for (int tile = 0; tile < kTiles<kRows>; ++tile) {
        SplitWeights fn;
#pragma unroll
        for (int q = 0; q < 3; ++q) {
          const uint4 four = split[buffer][s][tile][q][lane];
          fn.part[q] = {{four.x, four.y, four.z, four.w}};
        }
        float d[4];
        Multiply(d, x[s], fn);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[tile][i] = s == 0 ? d[i] : __fadd_rn(sum[tile][i], d[i]);
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float of_stream = SquareSum(x[s][h]);
        square[h] = s == 0 ? of_stream : __fadd_rn(square[h], of_stream);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles<kRows>; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) total[tile][i] = __fadd_rn(total[tile][i], sum[tile][i]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) total_square[h] = __fadd_rn(total_square[h], square[h]);
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int64_t token = first + local + 8 * h;
    if (token >= p.tokens) continue;
    float* to = p.sums + (token * gridDim.x + blockIdx.x) * kSlot<kRows>;
#pragma unroll
    for (int tile = 0; tile < kTiles<kRows>; ++tile) {
      to[tile * 8 + lane % 4 * 2] = total[tile][2 * h];
      to[tile * 8 + lane % 4 * 2 + 1] = total[tile][2 * h + 1];
    }
    if (lane % 4 == 0) to[kSquares<kRows>] = total_square[h];
  }
}

// ---- host ----

// More tokens than this are summed by groups. Blocks of 128 tokens read fn half as often as those
// of 64, but a device must have enough of them.
inline constexpr int64_t kFewTokens = kMhcFewTokens, kManyTokens = 2048;

struct Parts {
  float* sums;
  int count, per_group;  // of a token, and of a group
};

// Launches post and the sums; p.sums is set here.
template <int kRows, bool kPost>
Parts LaunchSums(Context& k, const char* op, SumsParams p) {
  const int64_t pieces = p.dim / kPiece, groups = CeilDiv(pieces, kGroup);
  const bool few = p.tokens <= kFewTokens;
  const Parts parts = {
      static_cast<float*>(k.device()->Workspace(MhcCudaWorkspace(p.tokens, p.dim, kRows))),
      static_cast<int>(few ? pieces : groups), few ? kGroup : 1};
  p.sums = parts.sums;
  if (p.sums == nullptr) {
    k.Fail(k.device()->TakeError());
    return parts;
  }
  const auto blocks = [&](int64_t tokens, int64_t each) {
    return dim3(static_cast<unsigned>(few ? pieces : groups),
                static_cast<unsigned>(CeilDiv(tokens, each)));
  };
  if (few) {
    LaunchOverlapped(k, op, SumPieces<kRows, kPost>, blocks(p.tokens, kTileTokens),
                     kStreams * kWarp, 0, p);
  } else if (p.tokens <= kManyTokens) {
    Launch(k, op, SumGroups<kRows, kPost, 4>, blocks(p.tokens, 64), 4 * kWarp, 0, p);
  } else {
    Launch(k, op, SumGroups<kRows, kPost, 8>, blocks(p.tokens, 128), 8 * kWarp, 0, p);
  }
  return parts;
}
template <int kRows>
Parts LaunchSums(Context& k, const char* op, const SumsParams& p) {
  return p.y != nullptr ? LaunchSums<kRows, true>(k, op, p) : LaunchSums<kRows, false>(k, op, p);
}

}  // namespace seacliff::cuda::mhc
