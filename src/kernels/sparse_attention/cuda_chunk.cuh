// The kernel of the cuda row of sparse_attention for tokens of long chunks.
//
// A block takes one token, 16, 32 or 64 heads, and all their keys in tiles of 32. Warp w has the
// w-th 64 values of every head and key throughout, which is one scale group of an entry: its part
// of the query in registers, its part of each score, and its part of the output. The parts of a
// score are added up through shared memory, where keys lie as they are stored: a warp decodes what
// it needs on the way into its registers. While a tile's values are added to the output, the next
// one's scores are computed and those after it are on their way.
#pragma once

#include "kernels/sparse_attention/cuda_keys.cuh"

namespace seacliff::sparse_attention {

inline constexpr int kTile = 32;        // keys
inline constexpr int kChunkStages = 3;  // tiles of keys in shared memory

// ---- shared memory ----

template <int kTiles>
struct alignas(16) Shared {
  static constexpr int kHeads = 16 * kTiles;
  static constexpr int kWeightPitch = kTile + 8;  // bf16

  Source sources[kChunkStages][kTile];
  float2 turns[32];      // cosine and sine of the rotated pairs
  float factor[kHeads];  // what a tile shrinks the sums before it by,
  int32_t shrunk;        // and the last tile for which one of them is not 1
  float top[kHeads], sum[kHeads];
  uint32_t valid[kChunkStages + 1];  // keys of a tile that are there, of some tiles in turn
  alignas(16) Bf16 weights[kHeads * kWeightPitch];
};

// After Shared: keys, kChunkStages times [kTile, pitch] bytes and [kTile, kScales]; then scores,
// [groups, kHeads, kTile] f32.
__host__ __device__ inline int ChunkStageBytes(int groups) {
  return kTile * (Pitch(groups) + kScales);
}
template <int kTiles>
constexpr int64_t SharedBytes(int groups) {
  return static_cast<int64_t>(sizeof(Shared<kTiles>)) + kChunkStages * ChunkStageBytes(groups) +
         int64_t{4} * groups * Shared<kTiles>::kHeads * kTile;
}

// ---- load ----

// Eight threads a key; zeros where there is none. Only where a page is one entry do rows begin at
// multiples of 8 instead of 16.
__device__ __forceinline__ void FetchTile(const Params& p, const Source* sources, uint8_t* stage,
                                          int groups) {
  const int part = threadIdx.x % 8, pitch = Pitch(groups), row_bytes = (groups + 1) * kGroup;
#pragma unroll 1
  for (int key = threadIdx.x / 8; key < kTile; key += groups * kWarp / 8) {
    const Source source = sources[key];
    const bool valid = source.values != nullptr;
    const uint8_t* from = valid ? source.values : p.window.data;
    const uint8_t* scales = valid ? source.scales : p.window.data;
    uint8_t* to = stage + key * pitch;
    if (part == 0) CopyAsync8(stage + kTile * pitch + key * kScales, scales, valid);
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      from += 16 * part, to += 16 * part;
#pragma unroll
      for (int i = 0; i < 5; ++i) {
        if (16 * part + 128 * i < row_bytes) CopyAsync16(to + 128 * i, from + 128 * i, valid);
      }
    } else {
#pragma unroll 1
      for (int i = 8 * part; i < row_bytes; i += 64) CopyAsync8(to + i, from + i, valid);
    }
  }
}

// What each warp does with tiles of keys; `kRope`: bf16 values as they are, the last warp's.
//
// Of e4m3, a matrix of ldmatrix has rows of 16 values. Without transposition a lane gets the four
// neighbouring values 4t .. 4t + 3 of a row, the even ones of which are taken for numbers 2t, 2t +
// 1 of a product's 16 terms, the others for 2t + 8, 2t + 9: the query's values are put in that
// order. Transposed, it gets a block of two keys and two neighbouring values: two columns of
// factors.
template <bool kRope>
struct Lane {
  const uint8_t* keys;  // of the stage, this warp's values
  int pitch, lane;

  // 8 keys as stored, and as factors b of the 4 steps of their scores.
  __device__ __forceinline__ void Load(int first_key, uint32_t (&r)[kRope ? 8 : 4]) const {
    const uint8_t* row = keys + (first_key + lane % 8) * pitch + lane / 8 * 16;
    uint32_t half[4];
#pragma unroll
    for (int i = 0; i < (kRope ? 2 : 1); ++i) {
      LoadMatrix4(half, row + 64 * i);
#pragma unroll
      for (int j = 0; j < 4; ++j) r[4 * i + j] = half[j];
    }
  }
  __device__ __forceinline__ static void ForScores(const uint32_t (&r)[kRope ? 8 : 4],
                                                   uint32_t (&b)[4][2]) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if constexpr (kRope) {
        b[step][0] = r[2 * step], b[step][1] = r[2 * step + 1];
      } else {
        const Decoded four(r[step]);
        b[step][0] = four.even, b[step][1] = four.odd;
      }
    }
  }

  // Factors b of 16 keys and the columns 8 (4 half) .. of the output, as StoreHead has them.
  __device__ __forceinline__ void ForValues(int first_key, int half, uint32_t (&b)[4][2]) const {
    const uint8_t* row = keys + (first_key + lane % 16) * pitch + lane / 16 * 16;
    uint32_t r[4];
    if constexpr (kRope) {
#pragma unroll
      for (int quarter = 0; quarter < 2; ++quarter) {
        LoadMatrix4Transposed(r, row + 64 * half + 32 * quarter);
        b[2 * quarter][0] = r[0], b[2 * quarter][1] = r[1];
        b[2 * quarter + 1][0] = r[2], b[2 * quarter + 1][1] = r[3];
      }
    } else {
      LoadMatrix4Transposed(r, row + 32 * half);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Decoded four(r[i]);
        b[i / 2 * 2][i % 2] = four.even;
        b[i / 2 * 2 + 1][i % 2] = four.odd;
      }
    }
  }
};

// ---- compute ----

template <int kTiles>
struct Registers {
  uint32_t q[kTiles][4][4];  // factors a: 16 heads, 4 steps of 16 values
  float out[kTiles][8][4];   // 16 heads, 8 columns eight times
};

// This warp's part of the scores of a tile: to `scores` [kHeads, kTile], groups of 8 keys exchanged
// so that neither the stores here nor the loads later meet in a bank.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddScores(const Registers<kTiles>& r, const Lane<kRope>& from,
                                          const uint8_t* scales, float* scores) {
  constexpr int kAtOnce = 4 / kTiles;                // groups of 8 keys
  constexpr int kAhead = kTiles == 4 ? 2 : kAtOnce;  // loaded before they are used
  const int g = from.lane / 4, t = from.lane % 4;
  constexpr int kWords = kRope ? 8 : 4, kFar = kAhead < 4 ? kAhead : 4;
  uint32_t stored[4][kWords];
#pragma unroll
  for (int i = 0; i < kFar; ++i) from.Load(8 * i, stored[i]);
#pragma unroll
  for (int first = 0; first < 4; first += kAtOnce) {
    uint32_t b[kAtOnce][4][2];
    float s[kAtOnce][kTiles][4] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i + kFar < 4) from.Load(8 * (first + i + kFar), stored[first + i + kFar]);
      from.ForScores(stored[first + i], b[i]);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) MmaBf16(s[i][m], r.q[m][step], b[i][step]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int key = 8 * (first + i) + 2 * t;
      const float scale0 = kRope ? 1.0f : FromE8m0(scales[key * kScales]);
      const float scale1 = kRope ? 1.0f : FromE8m0(scales[(key + 1) * kScales]);
      float* to = scores + g * kTile + (key ^ (g % 4 * 8));
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        *reinterpret_cast<float2*>(to + 16 * m * kTile) =
            make_float2(s[i][m][0] * scale0, s[i][m][1] * scale1);
        *reinterpret_cast<float2*>(to + (16 * m + 8) * kTile) =
            make_float2(s[i][m][2] * scale0, s[i][m][3] * scale1);
      }
    }
  }
}

// What a thread weighs: four keys of a tile for some heads, eight threads a head. `top`: a whole
// number that no score so far is above, in log2 units; `sum`: of its own weights, relative to it.
template <int kTiles, bool kFull>
struct Weighed {
  static constexpr int kHeads = Shared<kTiles>::kHeads;
  static constexpr int kUnits = kFull ? (kTiles + 1) / 2 : 2;  // with 2 groups, 64 threads

  float top[kUnits], sum[kUnits];

  __device__ __forceinline__ static int UnitOf(int u, int groups) {
    return static_cast<int>(threadIdx.x) + u * groups * kWarp;
  }
  __device__ __forceinline__ static bool There(int u, int groups) {  // the same in all of a warp
    return (kFull && kTiles > 1) || UnitOf(u, groups) < 8 * kHeads;
  }

  // Scores to weights.
  __device__ __forceinline__ void Weigh(Shared<kTiles>& shared, const float* scores, int groups,
                                        float scale, uint32_t valid, int tile) {
    float s[kUnits][4], most[kUnits];
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (!There(u, groups)) continue;
      const int head = UnitOf(u, groups) / 8, four = threadIdx.x % 8;
      const float* from = scores + head * kTile + (4 * four ^ (head % 4 * 8));
      const auto add = [&](int w) {
        const float4 part = *reinterpret_cast<const float4*>(from + w * kHeads * kTile);
        s[u][0] += part.x, s[u][1] += part.y, s[u][2] += part.z, s[u][3] += part.w;
      };
#pragma unroll
      for (float& v : s[u]) v = 0;
      if constexpr (kFull) {
#pragma unroll
        for (int w = 0; w < 8; ++w) add(w);
      } else {
        for (int w = 0; w < groups; ++w) add(w);
      }
      most[u] = -INFINITY;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[u][i] = (valid >> (4 * four + i) & 1) != 0 ? s[u][i] * scale : -INFINITY;
        most[u] = fmaxf(most[u], s[u][i]);
      }
    }
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        if (!There(u, groups)) continue;
        most[u] = fmaxf(most[u], __shfl_xor_sync(0xffffffffu, most[u], lanes));
      }
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (!There(u, groups)) continue;
      const int head = UnitOf(u, groups) / 8, four = threadIdx.x % 8;
      const float now = fmaxf(top[u], ceilf(most[u])), base = now == -INFINITY ? 0.0f : now;
      const float factor = Exp2(top[u] - base);
#pragma unroll
      for (float& v : s[u]) v = Exp2(v - base);
      *reinterpret_cast<uint2*>(shared.weights + head * Shared<kTiles>::kWeightPitch + 4 * four) =
          make_uint2(Bf16Pair(s[u][0], s[u][1]), Bf16Pair(s[u][2], s[u][3]));
      sum[u] = fmaf(sum[u], factor, (s[u][0] + s[u][1]) + (s[u][2] + s[u][3]));
      top[u] = now;
      if (four == 0) {
        shared.factor[head] = factor;
        if (factor != 1.0f) shared.shrunk = tile;
      }
    }
  }

  // Leaves the heads' tops and sums for all.
  __device__ __forceinline__ void Share(Shared<kTiles>& shared, int groups) {
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      if (!There(u, groups)) continue;
#pragma unroll
      for (int lanes = 1; lanes < 8; lanes *= 2) {
        sum[u] += __shfl_xor_sync(0xffffffffu, sum[u], lanes);
      }
      if (threadIdx.x % 8 != 0) continue;
      shared.top[UnitOf(u, groups) / 8] = top[u];
      shared.sum[UnitOf(u, groups) / 8] = sum[u];
    }
  }
};

// The tile's values by their weights, onto what the tiles before gave.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddChunkValues(Registers<kTiles>& r, const Lane<kRope>& from,
                                               const uint8_t* scales, const Shared<kTiles>& shared,
                                               int tile) {
  const int lane = from.lane, g = lane / 4, t = lane % 4;
  if (shared.shrunk == tile) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const float factor[2] = {shared.factor[16 * m + g], shared.factor[16 * m + g + 8]};
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) r.out[m][n][i] *= factor[i / 2];
      }
    }
  }
#pragma unroll
  for (int first = 0; first < kTile; first += 16) {
    uint32_t weights[kTiles][4];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      LoadMatrix4(weights[m], shared.weights + (16 * m + lane % 16) * Shared<kTiles>::kWeightPitch +
                                  first + lane / 16 * 8);
    }
    if constexpr (!kRope) {
      // Scales go to the weights: a power of two changes no digit of them.
      uint32_t scale[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint8_t* at = scales + (first + 2 * t + 8 * i) * kScales;
        scale[i] = ScalePair(at[0], at[kScales]);
      }
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) weights[m][i] = Times(weights[m][i], scale[i / 2]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b[4][2];
      from.ForValues(first, half, b);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) MmaBf16(r.out[m][4 * half + n], weights[m], b[n]);
      }
    }
  }
}

// ---- store ----

// 1 / the denominator, for sums relative to `top`, both in log2 units like `sink`.
__device__ inline float Inverse(float top, float sum, float sink) {
  const float most = fmaxf(top, sink), lower = exp2f(top - most);
  return lower / (sum * lower + exp2f(sink - most));
}

// One head's values of this warp: v[n] are columns n of the product of rows g or g + 8, each two.
// In groups of e4m3 columns 2n and 2n + 1 stand in one another: values 16n + 4t .. + 3.
template <bool kRope, typename Get>
__device__ inline void StoreHead(Bf16* to, int t, float inverse, const float2* turns, Get v) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if constexpr (kRope) {
      *reinterpret_cast<uint32_t*>(to + 8 * n + 2 * t) =
          TurnedBack(v(n, 0) * inverse, v(n, 1) * inverse, turns[4 * n + t]);
    } else if (n % 2 == 0) {
      *reinterpret_cast<uint2*>(to + 8 * n + 4 * t) =
          make_uint2(Bf16Pair(v(n, 0) * inverse, v(n + 1, 0) * inverse),
                     Bf16Pair(v(n, 1) * inverse, v(n + 1, 1) * inverse));
    }
  }
}

// ---- the kernel ----

// This warp's values of the heads' queries, and no output yet. Heads beyond the last are zero.
template <int kTiles, bool kRope>
__device__ __forceinline__ void LoadChunkQueries(const Params& p, const Keys& all, int first_head,
                                                 int warp, int g, int t, Registers<kTiles>& r) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int head = first_head + 16 * m + 8 * below + g;
      const Bf16* row = p.q + (int64_t{all.token} * p.heads + head) * p.dim + kGroup * warp;
      const bool there = head < p.heads;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t low = 0, high = 0;
        if (there && kRope) {
          low = *reinterpret_cast<const uint32_t*>(row + 16 * step + 2 * t);
          high = *reinterpret_cast<const uint32_t*>(row + 16 * step + 8 + 2 * t);
        } else if (there) {
          const uint2 four = *reinterpret_cast<const uint2*>(row + 16 * step + 4 * t);
          low = __byte_perm(four.x, four.y, 0x5410), high = __byte_perm(four.x, four.y, 0x7632);
        }
        r.q[m][step][below] = low;
        r.q[m][step][2 + below] = high;
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) r.out[m][n][i] = 0;
    }
  }
}

// Warps whose group is of e4m3 and the one of bf16 run the same steps and meet at the same
// barriers.
template <int kTiles, bool kFull, bool kRope>
__device__ __forceinline__ void Run(const Params& p, const Keys& all, int first_head,
                                    Shared<kTiles>& shared, uint8_t* stages, float* scores,
                                    int groups) {
  constexpr int kHeads = Shared<kTiles>::kHeads;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int pitch = Pitch(groups), stage_bytes = ChunkStageBytes(groups);
  const int tiles = (all.count + kTile - 1) / kTile;

  // The first two tiles' keys; the loop finds and fetches the others three tiles ahead of use.
  for (int tile = warp; tile < kChunkStages - 1; tile += groups) {
    Search search;
    search.Name(all, tile * kTile + lane);
    search.Look(p, all);
    shared.sources[tile][lane] = search.Find(p);
    const bool found = shared.sources[tile][lane].values != nullptr;
    const uint32_t valid = __ballot_sync(0xffffffffu, found);
    if (lane == 0) shared.valid[tile] = valid;
  }
  if (threadIdx.x == 0) shared.shrunk = -1;
  Weighed<kTiles, kFull> weighed;
#pragma unroll
  for (float& v : weighed.top) v = -INFINITY;
#pragma unroll
  for (float& v : weighed.sum) v = 0;
  Meet();
#pragma unroll 1
  for (int tile = 0; tile < kChunkStages - 1; ++tile) {
    if (tile < tiles) {
      FetchTile(p, shared.sources[tile], stages + tile * stage_bytes, groups);
    }
    CommitCopies();
  }

  Registers<kTiles> r;
  LoadChunkQueries<kTiles, kRope>(p, all, first_head, warp, g, t, r);
  if (kRope) shared.turns[lane] = TurnOf(p, all.position, lane);

  float* own_scores = scores + warp * kHeads * kTile;
  const auto stage_of = [&](int tile) { return stages + tile % kChunkStages * stage_bytes; };
#pragma unroll 1
  for (int tile = -1; tile < tiles; ++tile) {
    const int next = tile + 1, coming = tile + kChunkStages;
    WaitCopies<kChunkStages - 2>();  // the next tile's keys
    Meet();                          // this tile's weights; its scores have been read
    Search search;
    const bool searches = warp == 0 && coming < tiles;
    if (searches) search.Name(all, coming * kTile + lane);
    const uint32_t valid = next < tiles ? shared.valid[next % (kChunkStages + 1)] : 0;
    if (valid != 0) {
      const uint8_t* stage = stage_of(next);
      AddScores<kTiles, kRope>(r, Lane<kRope>{stage + kGroup * warp, pitch, lane},
                               stage + kTile * pitch + warp, own_scores);
    }
    if (searches) search.Look(p, all);
    if (tile >= 0 && shared.valid[tile % (kChunkStages + 1)] != 0) {
      const uint8_t* stage = stage_of(tile);
      AddChunkValues<kTiles, kRope>(r, Lane<kRope>{stage + kGroup * warp, pitch, lane},
                                    stage + kTile * pitch + warp, shared, tile);
    }
    if (searches) {
      Source& source = shared.sources[coming % kChunkStages][lane];
      source = search.Find(p);
      const bool found = source.values != nullptr;
      const uint32_t there = __ballot_sync(0xffffffffu, found);
      if (lane == 0) shared.valid[coming % (kChunkStages + 1)] = there;
    }
    Meet();  // the next tile's scores; this tile's keys have been read
    if (coming < tiles) {
      FetchTile(p, shared.sources[coming % kChunkStages], stage_of(coming), groups);
    }
    CommitCopies();
    if (valid != 0) weighed.Weigh(shared, scores, groups, p.scale * kLog2e, valid, next);
  }
  weighed.Share(shared, groups);
  Meet();

#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int row = 16 * m + 8 * below + g, head = first_head + row;
      if (head >= p.heads) continue;
      const auto v = [&](int n, int i) { return r.out[m][n][2 * below + i]; };
      const int64_t at = (int64_t{all.token} * p.heads + head) * p.dim + kGroup * warp;
      const float inverse = Inverse(shared.top[row], shared.sum[row], p.sink[head] * kLog2e);
      StoreHead<kRope>(p.out + at, t, inverse, shared.turns, v);
    }
  }
}

// kFull: 8 groups, known to the compiler.
template <int kTiles, bool kFull>
__global__ void __launch_bounds__(8 * kWarp, kTiles == 1 ? 2 : 1) Chunk(const Params p) {
  extern __shared__ uint4 memory[];
  const int groups = kFull ? 8 : p.dim / kGroup;

  const int token = static_cast<int>(blockIdx.x / p.blocks);
  const int first_head = static_cast<int>(blockIdx.x % p.blocks) * Shared<kTiles>::kHeads;
  if (TokensOf(p, p.seq_of[token]) <= kFew) return;
  const Keys all = KeysOf(p, token);

  auto& shared = *reinterpret_cast<Shared<kTiles>*>(memory);
  auto* stages = reinterpret_cast<uint8_t*>(memory) + sizeof(Shared<kTiles>);
  auto* scores = reinterpret_cast<float*>(stages + kChunkStages * ChunkStageBytes(groups));
  if (static_cast<int>(threadIdx.x / kWarp) < groups - 1) {
    Run<kTiles, kFull, false>(p, all, first_head, shared, stages, scores, groups);
  } else {
    Run<kTiles, kFull, true>(p, all, first_head, shared, stages, scores, groups);
  }
}

template <int kTiles, bool kFull>
void LaunchChunk(Context& k, Params p, int64_t tokens) {
  p.blocks = static_cast<int32_t>(CeilDiv(p.heads, Shared<kTiles>::kHeads));
  const int groups = p.dim / kGroup;
  Launch(k, "sparse_attention", Chunk<kTiles, kFull>,
         dim3(static_cast<uint32_t>(tokens * p.blocks)),
         dim3(static_cast<uint32_t>(groups) * kWarp), SharedBytes<kTiles>(groups), p);
}

}  // namespace seacliff::sparse_attention
