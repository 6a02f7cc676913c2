// The first of two kernels of the cuda row of sparse_attention for tokens of sequences that bring
// few to the step: scores of their keys, and weights.
//
// Keys are numbered in units of 32. A block takes some units of a token and 16 or 32 heads. Warp w
// has the w-th 64 values of keys and queries, the latter in registers; the parts of a score are
// added up in shared memory. Weights are relative to a power of two that is not below any of the
// unit's for that head, so that what brings units together changes no digit of them. A score's
// bits depend on its token alone, and on no number of heads or units in a block.
#pragma once

#include "kernels/sparse_attention/cuda_keys.cuh"

namespace seacliff::sparse_attention {

inline constexpr int kStages = 3;              // units in shared memory
inline constexpr int kScorePitch = kUnit + 4;  // of a head's scores: free of conflicts

// Shared memory: keys, kStages times [kUnit, pitch] bytes and [kUnit, kScales]; then parts of
// scores, [groups][heads][kScorePitch] f32; then kStages times [kUnit] flags: which keys are there.
__host__ __device__ inline int StageBytes(int groups) { return kUnit * (Pitch(groups) + kScales); }
template <int kTiles>
constexpr int64_t ScoresBytes(int groups) {
  return int64_t{kStages} * (kUnit * ((groups + 1) * kGroup + 16 + kScales)) +
         int64_t{4} * groups * 8 * kTiles * kScorePitch + kUnit * kStages;
}

// ---- load ----

// This warp's values of the heads' queries as factors b: of e4m3 the sixteen terms of a step stand
// in the order in which a lane finds them among the keys, four neighbours, first the even ones.
template <int kTiles, bool kRope>
__device__ __forceinline__ void LoadQueries(const Params& p, int token, int first_head, int warp,
                                            uint32_t (&q)[kTiles][4][2]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int head = first_head + 8 * n + g;
    const Bf16* row = p.q + (int64_t{token} * p.heads + head) * p.dim + kGroup * warp;
    const bool there = head < p.heads;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      uint2 v = {};
      if (there && kRope) {
        const auto* two = reinterpret_cast<const uint32_t*>(row + 16 * step) + t;
        v = make_uint2(two[0], two[4]);
      } else if (there) {
        const uint2 four = *reinterpret_cast<const uint2*>(row + 16 * step + 4 * t);
        v = make_uint2(__byte_perm(four.x, four.y, 0x5410), __byte_perm(four.x, four.y, 0x7632));
      }
      q[n][step][0] = v.x, q[n][step][1] = v.y;
    }
  }
}

// ---- compute ----

// This warp's part of the scores of a unit.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddUnit(const uint32_t (&q)[kTiles][4][2], const uint8_t* stage,
                                        int pitch, int warp, float* scores) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int first = 0; first < kUnit; first += 16) {
    const uint8_t* rows = stage + (first + lane % 16) * pitch + kGroup * warp + lane / 16 * 16;
    uint32_t a[4][4];
    if constexpr (kRope) {
#pragma unroll
      for (int step = 0; step < 4; ++step) LoadMatrix4(a[step], rows + 32 * step);
    } else {
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        uint32_t r[4];
        LoadMatrix4(r, rows + 32 * pair);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const Decoded four(r[i]);
          a[2 * pair + i / 2][i % 2] = four.even, a[2 * pair + i / 2][2 + i % 2] = four.odd;
        }
      }
    }
    const uint8_t* scales = stage + kUnit * pitch + (first + g) * kScales + warp;
    const float scale0 = kRope ? 1.0f : FromE8m0(scales[0]);
    const float scale1 = kRope ? 1.0f : FromE8m0(scales[8 * kScales]);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      float d[4] = {};
#pragma unroll
      for (int step = 0; step < 4; ++step) MmaBf16(d, a[step], q[n][step]);
      float* to = scores + (8 * n + 2 * t) * kScorePitch + first + g;
      to[0] = d[0] * scale0, to[kScorePitch] = d[1] * scale0;
      to[8] = d[2] * scale1, to[kScorePitch + 8] = d[3] * scale1;
    }
  }
}

// Adds up the parts of a unit's scores and stores its weights. Eight threads a head, four keys
// each.
template <int kTiles, int kGroups>
__device__ __forceinline__ void Weigh(const Params& p, const float* scores, const uint8_t* flags,
                                      int groups, int64_t unit, int first_tile) {
  constexpr int kHeads = 8 * kTiles;
  for (int i = threadIdx.x; i < 8 * kHeads; i += groups * kWarp) {
    const int head = i / 8, four = i % 8;
    const float* from = scores + head * kScorePitch + 4 * four;
    float s[4] = {};
    const auto add = [&](int w) {
      const float4 part = *reinterpret_cast<const float4*>(from + w * kHeads * kScorePitch);
      s[0] += part.x, s[1] += part.y, s[2] += part.z, s[3] += part.w;
    };
    if constexpr (kGroups != 0) {
#pragma unroll
      for (int w = 0; w < kGroups; ++w) add(w);
    } else {
      for (int w = 0; w < groups; ++w) add(w);
    }
    const uint32_t valid = *reinterpret_cast<const uint32_t*>(flags + 4 * four);
    float top = -INFINITY;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      s[k] = (valid >> 8 * k & 1) != 0 ? s[k] * (p.scale * kLog2e) : -INFINITY;
      top = fmaxf(top, s[k]);
    }
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) {
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lanes));
    }
    top = ceilf(top);
    const float base = top == -INFINITY ? 0.0f : top;  // no key: no weight
#pragma unroll
    for (float& v : s) v = Exp2(v - base);
    float total = (s[0] + s[1]) + (s[2] + s[3]);
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, lanes);
    }
    // As factors b of the products with the values: lane t of four has keys 2t, 2t + 1, 2t + 8 and
    // 2t + 9 of a step.
    const int64_t tile = first_tile + head / 8, step = unit * 2 + four / 4;
    uint32_t* to = p.weights + ((step * p.tiles + tile) * kWarp + head % 8 * 4 + four % 2 * 2) * 2 +
                   four / 2 % 2;
    to[0] = Bf16Pair(s[0], s[1]), to[2] = Bf16Pair(s[2], s[3]);
    if (four == 0) p.stats[(unit * p.tiles + tile) * 8 + head % 8] = make_float2(top, total);
  }
}

// ---- the kernel ----

// Keys that a thread helps to fetch, eight threads a key: one of a unit where there are 8 groups.
template <int kEach>
struct Coming {
  Search search[kEach];
  bool picked[kEach];

  __device__ __forceinline__ static int KeyOf(int i) {
    return (static_cast<int>(threadIdx.x) + i * static_cast<int>(blockDim.x)) / 8;
  }
  __device__ __forceinline__ void Name(const Keys& all, int first) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) search[i].Name(all, first + KeyOf(i));
  }
  __device__ __forceinline__ void Look(const Params& p, const Keys& all) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) search[i].Look(p, all);
  }
  // Both of those whose names are, or are not, among the picks.
  __device__ __forceinline__ void Find(const Params& p, const Keys& all, int first, bool picks) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      picked[i] = all.picks != nullptr && first + KeyOf(i) >= all.window;
      if (picked[i] == picks) search[i].Name(all, first + KeyOf(i));
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (picked[i] == picks) search[i].Look(p, all);
    }
  }
  // Copies those for which `take` is true.
  template <typename Take>
  __device__ __forceinline__ void Fetch(const Params& p, uint8_t* stage, uint8_t* flags, int groups,
                                        Take take) const {
    const int part = threadIdx.x % 8, pitch = Pitch(groups), row_bytes = (groups + 1) * kGroup;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int key = KeyOf(i);
      if (key >= kUnit || !take(i)) continue;
      const Source source = search[i].Find(p);
      const bool found = source.values != nullptr;
      const uint8_t* from = found ? source.values : p.window.data;
      uint8_t* to = stage + key * pitch;
      if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        from += 16 * part, to += 16 * part;
#pragma unroll
        for (int b = 0; b < 5; ++b) {
          if (16 * part + 128 * b < row_bytes) CopyAsync16(to + 128 * b, from + 128 * b, found);
        }
      } else {
#pragma unroll 1
        for (int b = 8 * part; b < row_bytes; b += 64) CopyAsync8(to + b, from + b, found);
      }
      if (part == 0) {
        CopyAsync8(stage + kUnit * pitch + key * kScales, found ? source.scales : p.window.data,
                   found);
        flags[key] = found ? 1 : 0;
      }
    }
  }
};

// Warps whose group is of e4m3 and the one of bf16 run the same steps and meet at the same
// barriers.
template <int kTiles, bool kFull, bool kRope>
__device__ __forceinline__ void ScoreUnits(const Params& p, const Keys& all, int64_t slot,
                                           int first_head, int first_unit, int units,
                                           uint8_t* memory, int groups) {
  constexpr int kEach = kFull ? 1 : 4;  // 2 groups at least
  const int warp = threadIdx.x / kWarp, pitch = Pitch(groups);
  auto* scores = reinterpret_cast<float*>(memory + kStages * StageBytes(groups));
  auto* flags = reinterpret_cast<uint8_t*>(scores + groups * 8 * kTiles * kScorePitch);
  const auto stage_of = [&](int unit) { return memory + unit % kStages * StageBytes(groups); };
  const auto flags_of = [&](int unit) { return flags + unit % kStages * kUnit; };
  const auto first_of = [&](int unit) { return (first_unit + unit) * kUnit; };

  // The first units: keys of earlier steps whose names need no waiting for are fetched at once.
  Coming<kEach> coming[kStages - 1];
  const int first_new = p.positions[p.seq_begin[all.seq]];
  const auto is_early = [&](const Coming<kEach>& c, int i) {
    const Search& s = c.search[i];
    return !c.picked[i] && s.block < (s.in_window ? first_new : first_new / max(p.ratio, 1));
  };
#pragma unroll
  for (int u = 0; u < kStages - 1; ++u) {
    if (u < units) coming[u].Find(p, all, first_of(u), false);
  }
#pragma unroll
  for (int u = 0; u < kStages - 1; ++u) {
    if (u >= units) continue;
    coming[u].Fetch(p, stage_of(u), flags_of(u), groups,
                    [&](int i) { return is_early(coming[u], i); });
  }
  WaitForEarlier();
  LetNextStart();  // only now: the next kernel reads the keys at once
#pragma unroll
  for (int u = 0; u < kStages - 1; ++u) {
    if (u < units) coming[u].Find(p, all, first_of(u), true);
  }
#pragma unroll
  for (int u = 0; u < kStages - 1; ++u) {
    if (u < units) {
      coming[u].Fetch(p, stage_of(u), flags_of(u), groups,
                      [&](int i) { return !is_early(coming[u], i); });
    }
    CommitCopies();
  }
  uint32_t q[kTiles][4][2];
  LoadQueries<kTiles, kRope>(p, all.token, first_head, warp, q);

  float* own_scores = scores + warp * 8 * kTiles * kScorePitch;
#pragma unroll 1
  for (int unit = 0; unit < units; ++unit) {
    const int next = unit + kStages - 1;
    Coming<kEach> then;
    if (next < units) then.Name(all, first_of(next));
    WaitCopies<kStages - 2>();
    Meet();  // the unit's keys; the scores before have been read
    AddUnit<kTiles, kRope>(q, stage_of(unit), pitch, warp, own_scores);
    if (next < units) then.Look(p, all);
    Meet();  // the scores; the keys of the unit before have been read
    if (next < units) {
      then.Fetch(p, stage_of(next), flags_of(next), groups, [](int) { return true; });
    }
    CommitCopies();
    Weigh<kTiles, kFull ? 8 : 0>(p, scores, flags_of(unit), groups,
                                 slot * p.units + first_unit + unit, first_head / 8);
  }
}

// Block (slot, units, heads). kFull: 8 groups, known to the compiler.
template <int kTiles, bool kFull>
__global__ void __launch_bounds__(8 * kWarp, 2) Scores(const Params p) {
  extern __shared__ uint4 memory[];
  const int groups = kFull ? 8 : p.dim / kGroup;
  const int64_t item = blockIdx.x / p.blocks, slot = item / p.splits;
  const int first_head = static_cast<int>(blockIdx.x % p.blocks) * 8 * kTiles;
  const int token = TokenOf(p, p.first_slot + slot);
  const Keys all = token < 0 ? Keys{} : KeysOf(p, token);
  const int first = static_cast<int>(item % p.splits) * p.split;
  const int units = min(p.split, CeilUnits(all.count) - first);
  if (units <= 0) {
    WaitForEarlier();  // so that no launch after this one overtakes those before it
    LetNextStart();
    return;
  }
  auto* bytes = reinterpret_cast<uint8_t*>(memory);
  if (static_cast<int>(threadIdx.x / kWarp) < groups - 1) {
    ScoreUnits<kTiles, kFull, false>(p, all, slot, first_head, first, units, bytes, groups);
  } else {
    ScoreUnits<kTiles, kFull, true>(p, all, slot, first_head, first, units, bytes, groups);
  }
}

template <int kTiles, bool kFull>
void LaunchScores(Context& k, Params p, int64_t slots) {
  const int groups = p.dim / kGroup;
  p.blocks = static_cast<int32_t>(CeilDiv(p.heads, 8 * kTiles));
  // As many units to a block as let all blocks run at once, two to a multiprocessor.
  const int64_t rows = slots * p.blocks, room = 2 * Multiprocessors(k);
  p.split = static_cast<int32_t>(CeilDiv(p.units, std::max<int64_t>(room / rows, 1)));
  p.splits = static_cast<int32_t>(CeilDiv(p.units, p.split));
  LaunchOverlapped(k, "sparse_attention", Scores<kTiles, kFull>,
                   dim3(static_cast<uint32_t>(rows * p.splits)),
                   dim3(static_cast<uint32_t>(groups) * kWarp), ScoresBytes<kTiles>(groups), p);
}

}  // namespace seacliff::sparse_attention
