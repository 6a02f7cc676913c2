// The second of two kernels of the cuda row of sparse_attention for tokens of sequences that bring
// few to the step: the keys' values by the weights that the first one left, and the output.
//
// A block takes 64 bytes of every key of a token, which are a scale group of e4m3 or half the bf16
// values, for some heads. Values are the rows of the products and heads their columns. Steps of 16
// keys go to four classes in turn, whose sums are added up in the end, so an output's bits depend
// on its token alone.
#pragma once

#include "kernels/sparse_attention/cuda_keys.cuh"

namespace seacliff::sparse_attention {

inline constexpr int kClasses = 4;
inline constexpr int kRoundUnits = 20;  // in shared memory at a time
inline constexpr int kRoundKeys = kRoundUnits * kUnit;
inline constexpr int kSlice = 64;                  // bytes of a key
inline constexpr int kSlicePitch = kSlice + 16;    // an odd number of 16
inline constexpr int kValuesWarps = 2 * kClasses;  // two halves of the slice
inline constexpr int kSumPitch = 68;               // floats of a head's values in a class
// e4m3 come as 2^-120 of themselves, and go into the sums as 2^kLift less than with their scales:
// so the factor of both is a bf16 for scales up to 2^(127 - 120 + kLift).
inline constexpr int kLift = 60;

template <int kTiles>
struct ValuesShared {
  static constexpr int kHeads = 8 * kTiles;
  union alignas(16) {
    uint8_t keys[kRoundKeys * kSlicePitch];
    float sums[kClasses][kHeads][kSumPitch];
  };
  alignas(16) uint8_t stored_scales[kRoundKeys * kScales];
  float2 stats[kRoundUnits][kHeads];
  uint16_t scales[kRoundKeys];            // bf16, as Decoded is multiplied with
  uint32_t factors[kRoundUnits][kHeads];  // pairs of bf16: what brings a unit's weights to the top
  float top[kHeads], inverse[kHeads];
  float2 turns[kGroup / 2];
};

// ---- load ----

// 32 keys, one of each lane's search; scales: null where they do not matter.
__device__ __forceinline__ void FetchSlices(const Params& p, const Search& search, int slice,
                                            uint8_t* keys, uint8_t* scales) {
  const int lane = threadIdx.x % kWarp, part = lane % 4;
  const Source source = search.Find(p);
  const auto address = reinterpret_cast<uint64_t>(source.values);
#pragma unroll
  for (int row = 0; row < kUnit; row += 8) {
    const auto* from =
        reinterpret_cast<const uint8_t*>(__shfl_sync(0xffffffffu, address, row + lane / 4));
    const bool found = from != nullptr;
    from = found ? from + kSlice * slice + 16 * part : p.window.data;
    uint8_t* to = keys + (row + lane / 4) * kSlicePitch + 16 * part;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      CopyAsync16(to, from, found);
    } else {
      CopyAsync8(to, from, found);
      CopyAsync8(to + 8, from + 8, found);
    }
  }
  if (scales == nullptr) return;
  const bool found = source.values != nullptr;
  CopyAsync8(scales + lane * kScales, found ? source.scales : p.window.data, found);
}

// ---- compute ----

// Adds up a round's weights: `top` and `total` are those of head thread / 4, units thread % 4 and
// every fourth on.
template <int kTiles>
__device__ __forceinline__ void AddStats(const ValuesShared<kTiles>& shared, int units, float& top,
                                         float& total) {
  const int head = threadIdx.x / 4;
  for (int u = threadIdx.x % 4; u < units; u += 4) {
    const float2 stat = shared.stats[u][head];
    const float now = fmaxf(top, stat.x), base = now == -INFINITY ? 0.0f : now;
    total = fmaf(total, Exp2(top - base), stat.y * Exp2(stat.x - base));
    top = now;
  }
}

// This warp's class of a round's keys, its half of the slice.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddRound(float (&out)[kRope ? 1 : 2][kTiles][4],
                                         uint2 (&next)[kTiles], const ValuesShared<kTiles>& shared,
                                         const uint2* weights, int64_t stride, int steps) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const uint8_t* rows =
      shared.keys + (warp / 2 * 16 + lane % 16) * kSlicePitch + warp % 2 * 32 + lane / 16 * 16;
  const uint16_t* scales = shared.scales + warp / 2 * 16 + 2 * t;
#pragma unroll 1
  for (int step = warp / 2; step < steps; step += kClasses) {
    uint32_t b[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint32_t factor = shared.factors[step / 2][8 * n + g];
      b[n][0] = Times(next[n].x, factor), b[n][1] = Times(next[n].y, factor);
    }
    weights += stride;
    if (step + kClasses < steps) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) next[n] = weights[n * kWarp];
    }
    uint32_t r[4];
    LoadMatrix4Transposed(r, rows);
    if constexpr (kRope) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) MmaBf16(out[0][n], {r[0], r[2], r[1], r[3]}, b[n]);
    } else {
      const uint32_t low = *reinterpret_cast<const uint32_t*>(scales);
      const uint32_t high = *reinterpret_cast<const uint32_t*>(scales + 8);
      const Decoded a0(r[0], low), a1(r[1], high), a2(r[2], low), a3(r[3], high);
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        MmaBf16(out[0][n], {a0.even, a0.odd, a1.even, a1.odd}, b[n]);
        MmaBf16(out[1][n], {a2.even, a2.odd, a3.even, a3.odd}, b[n]);
      }
    }
    rows += 16 * kClasses * kSlicePitch, scales += 16 * kClasses;
  }
}

// ---- the kernel ----

template <int kTiles, bool kRope>
__device__ __forceinline__ void AddValues(const Params& p, const Keys& all, int64_t slot,
                                          int first_head, int slice, ValuesShared<kTiles>& shared) {
  constexpr int kHeads = 8 * kTiles, kThreads = kValuesWarps * kWarp;
  constexpr int kEach = (kRoundUnits + kValuesWarps - 1) / kValuesWarps;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int warp = __shfl_sync(0xffffffffu, thread / kWarp, 0);  // known to be the same
  const int units = CeilUnits(all.count), heads = min(kHeads, p.heads - first_head);
  const int64_t first_tile = slot * p.units * p.tiles + first_head / 8;
  const float2* stats = p.stats + first_tile * 8;
  const auto* weights = reinterpret_cast<const uint2*>(p.weights) + first_tile * 2 * kWarp -
                        first_head / 8 * kWarp + warp / 2 * p.tiles * kWarp + lane;
  const int64_t stride = int64_t{kClasses} * p.tiles * kWarp;  // to a class's next step
  if (kRope && warp == 0) shared.turns[lane] = TurnOf(p, all.position, lane);

  // Of the keys numbered from 32 * first on.
  const auto fetch = [&](int first) {
    Search search[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      search[i].Name(all, (first + warp + i * kValuesWarps) * kUnit + lane);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) search[i].Look(p, all);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int unit = warp + i * kValuesWarps;
      if (unit >= kRoundUnits || first + unit >= units) continue;
      FetchSlices(p, search[i], slice, shared.keys + unit * kUnit * kSlicePitch,
                  kRope ? nullptr : shared.stored_scales + unit * kUnit * kScales);
    }
    CommitCopies();
  };
  // Every thread those scales that it has fetched.
  const auto convert_scales = [&](int first) {
    WaitCopies<0>();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int unit = warp + i * kValuesWarps;
      if (unit >= kRoundUnits || first + unit >= units) continue;
      const int key = unit * kUnit + lane;
      const int scale = shared.stored_scales[key * kScales + slice];
      shared.scales[key] = static_cast<uint16_t>(min(scale + 120 - kLift, 254) << 7);
    }
  };
  const auto load_stats = [&](int first, int now) {
    for (int i = thread; i < now * kHeads; i += kThreads) {
      shared.stats[i / kHeads][i % kHeads] =
          stats[int64_t{first + i / kHeads} * p.tiles * 8 + i % kHeads];
    }
  };

  // What the weights are relative to, and the denominators. Four threads a head.
  const auto denominators = [&] {
    float top = -INFINITY, total = 0;
    __syncthreads();
    for (int first = 0; first < units; first += kRoundUnits) {
      const int now = min(kRoundUnits, units - first);
      load_stats(first, now);
      __syncthreads();
      if (thread < 4 * kHeads) AddStats(shared, now, top, total);
      if (first + now < units) __syncthreads();
    }
    if (thread < 4 * kHeads) {
#pragma unroll
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, top, lanes);
        const float now = fmaxf(top, other), base = now == -INFINITY ? 0.0f : now;
        total *= Exp2(top - base);
        total += __shfl_xor_sync(0xffffffffu, total, lanes);
        top = now;
      }
      if (thread % 4 == 0) {
        const int head = thread / 4;
        const float sink = head < heads ? p.sink[first_head + head] * kLog2e : 0.0f;
        const float most = fmaxf(top, sink), lower = exp2f(top - most);
        shared.top[head] = top == -INFINITY ? 0.0f : top;
        shared.inverse[head] = lower / fmaf(total, lower, exp2f(sink - most)) *
                               (kRope ? 1.0f : static_cast<float>(int64_t{1} << kLift));
      }
    }
    __syncthreads();
  };

  float out[kRope ? 1 : 2][kTiles][4] = {};
#pragma unroll 1
  for (int first = 0; first < units; first += kRoundUnits) {
    const int now = min(kRoundUnits, units - first);
    fetch(first);
    if (!kRope) convert_scales(first);
    if (first == 0) {
      WaitForEarlier();  // the weights; the keys came before the kernel that made them
      // Only now: loads of the next launch's weights would delay those of the keys.
      LetNextStart();
    }
    const uint2* from = weights + int64_t{2 * first} * p.tiles * kWarp;
    uint2 next[kTiles] = {};
    if (warp / 2 < 2 * now) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) next[n] = from[n * kWarp];
    }
    if (first == 0) denominators();
    if (units > kRoundUnits) load_stats(first, now);  // else they are there
    for (int i = thread; i < now * kHeads; i += kThreads) {
      const float factor = Exp2(shared.stats[i / kHeads][i % kHeads].x - shared.top[i % kHeads]);
      shared.factors[i / kHeads][i % kHeads] = Bf16Pair(factor, factor);
    }
    WaitCopies<0>();
    __syncthreads();
    AddRound<kTiles, kRope>(out, next, shared, from, stride, 2 * now);
    __syncthreads();  // all have read the keys
  }

  // The classes' sums.
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float* to = shared.sums[warp / 2][8 * n + 2 * t + i] + warp % 2 * (kRope ? 16 : 32);
      if constexpr (kRope) {
        to[g] = out[0][n][i], to[g + 8] = out[0][n][2 + i];
      } else {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          *reinterpret_cast<float2*>(to + 16 * m + 2 * g) =
              make_float2(out[m][n][i], out[m][n][2 + i]);
        }
      }
    }
  }
  __syncthreads();
  constexpr int kFours = kRope ? 8 : 16;
  const int column = kRope ? p.dim - kGroup + 32 * (slice - (p.dim / kGroup - 1)) : kGroup * slice;
  Bf16* to = p.out + (int64_t{all.token} * p.heads + first_head) * p.dim + column;
  for (int i = thread; i < heads * kFours; i += kThreads) {
    const int head = i / kFours, four = i % kFours;
    float4 sum = {};
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
      const float4 part = *reinterpret_cast<const float4*>(shared.sums[c][head] + 4 * four);
      sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    const float inverse = shared.inverse[head];
    sum.x *= inverse, sum.y *= inverse, sum.z *= inverse, sum.w *= inverse;
    const float2* turns = shared.turns + (column - (p.dim - kGroup)) / 2 + 2 * four;
    *reinterpret_cast<uint2*>(to + int64_t{head} * p.dim + 4 * four) =
        kRope ? make_uint2(TurnedBack(sum.x, sum.y, turns[0]), TurnedBack(sum.z, sum.w, turns[1]))
              : make_uint2(Bf16Pair(sum.x, sum.y), Bf16Pair(sum.z, sum.w));
  }
}

// Block (slot, heads, slice).
template <int kTiles>
__global__ void __launch_bounds__(kValuesWarps* kWarp, 2) Values(const Params p) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<ValuesShared<kTiles>*>(memory);
  const int groups = p.dim / kGroup, slices = groups + 1;
  const int64_t item = blockIdx.x / slices, slot = item / p.blocks;
  const int slice = static_cast<int>(blockIdx.x % slices);
  const int first_head = static_cast<int>(item % p.blocks) * 8 * kTiles;
  const int token = TokenOf(p, p.first_slot + slot);
  if (token < 0) {
    WaitForEarlier();  // so that no launch after this one overtakes those before it
    return;
  }
  const Keys all = KeysOf(p, token);
  if (slice < groups - 1) {
    AddValues<kTiles, false>(p, all, slot, first_head, slice, shared);
  } else {
    AddValues<kTiles, true>(p, all, slot, first_head, slice, shared);
  }
}

template <int kTiles>
void LaunchValues(Context& k, Params p, int64_t slots) {
  p.blocks = static_cast<int32_t>(CeilDiv(p.heads, 8 * kTiles));
  LaunchOverlapped(k, "sparse_attention", Values<kTiles>,
                   dim3(static_cast<uint32_t>(slots * p.blocks * (p.dim / kGroup + 1))),
                   dim3(kValuesWarps * kWarp), sizeof(ValuesShared<kTiles>), p);
}

}  // namespace seacliff::sparse_attention
