// Pieces of the CUDA path of experts for few tokens (cuda_few.cu): numbers and the products of a
// warp with a stage of weights. Device code.
//
// Weights are the left factor of mma.m16n8k16. Values are f16: those of e2m1 and e4m3 are moved
// into the bits of an f16 (2^-14 and 2^-8 of their value, exact), those of x' are e4m3. What they
// must be multiplied by goes onto f32 sums: of 32 columns for MXFP4, 128 for FP8 and x.
#pragma once

#include "kernels/experts/cuda_common.cuh"

namespace seacliff::experts {
namespace {

// A stage holds 256 bytes each of 16 rows, the first eight "upper", the others "lower", as two
// lines of 128 bytes a row, and behind them, of MXFP4, the 16 scales of each row.
constexpr int kLineBytes = 128;  // of a row
constexpr int kHalfBytes = 8 * kLineBytes, kLineRows = 2 * kHalfBytes;
constexpr int kLineColumns = 256;  // of MXFP4, of FP8 half of them
constexpr int kStageLines = 2, kStageWeights = kStageLines * kLineRows;
constexpr int kScaleBytes = 16;  // of a row
// Of so many stages, a segment of 2,048 columns, the sums of MXFP4 are added up, and then those of
// the segments: so segments can be different warps' as well. The first one may be shorter.
constexpr int kSegmentStages = 4, kSegmentLines = kSegmentStages * kStageLines;
constexpr int kSegmentColumns = kSegmentLines * kLineColumns;
static_assert(kSegmentColumns == kCudaSegment);
__device__ inline int SegmentBegin(int lines, int segments, int segment) {
  return max(0, lines - (segments - segment) * kSegmentLines);
}
constexpr int kStageBytes = kStageWeights + 16 * kScaleBytes;
// Scales of x are stored times this, the unit of e2m1 in an f16; e4m3's is this times 2^-6.
constexpr float kE2m1Unit = 0x1p14f, kE4m3OfE2m1Unit = 0x1p-6f;

// ---- waiting: within a block, and for all blocks ----

// Keeps a number in its register: the compiler would work it out again and again.
__device__ inline uint32_t Kept(uint32_t v) {
  asm volatile("mov.u32 %0, %0;\n" : "+r"(v));
  return v;
}
// Shared memory by its address, where pointers would cost registers.
__device__ inline uint32_t AddressOf(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
__device__ inline uint32_t LoadHalfAt(uint32_t address) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];\n" : "=h"(v) : "r"(address));
  return v;
}
__device__ inline uint2 LoadPairAt(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];\n" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ inline void LoadMatrix4At(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// By one thread, for all of its block's that it has heard of.
__device__ inline void ArriveAtAll(uint32_t* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;\n" ::"l"(counter) : "memory");
}
__device__ inline void WaitForAll(const uint32_t* counter) {
  uint32_t seen;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(seen) : "l"(counter) : "memory");
  } while (seen < gridDim.x);
}

// As CopyAsync16, to an address of shared memory.
__device__ inline void CopyAt(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(from) : "memory");
}
__device__ inline void PrefetchL2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(p));
}

// Loads that stay where they stand: ahead of the wait for a stage, which hides them.
__device__ inline uint4 LoadEight(const uint16_t* p) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
__device__ inline float LoadOne(const float* p) {
  float v;
  asm volatile("ld.global.f32 %0, [%1];\n" : "=f"(v) : "l"(p));
  return v;
}
__device__ inline float2 LoadTwo(const float* p) {
  float2 v;
  asm volatile("ld.global.v2.f32 {%0, %1}, [%2];\n" : "=f"(v.x), "=f"(v.y) : "l"(p));
  return v;
}
__device__ inline uint32_t LoadCode(const uint8_t* p) {
  uint32_t v;
  asm volatile("ld.global.nc.u8 %0, [%1];\n" : "=r"(v) : "l"(p));
  return v;
}

// ---- numbers ----

// The bits of a where the mask has ones, those of b elsewhere.
__device__ inline uint32_t Select(uint32_t mask, uint32_t a, uint32_t b) {
  uint32_t v;
  asm("lop3.b32 %0, %1, %2, %3, 0xe4;\n" : "=r"(v) : "r"(a), "r"(b), "r"(mask));
  return v;
}
// Column i of eight is nibble i; pairs as in the order of x.
__device__ inline void HalvesFromE2m1(uint32_t w, uint32_t (&pairs)[4]) {
  // Each byte holds the upper one of an f16: sign, three zeros, magnitude, zero. Of the even
  // columns, 18 c - 15 has the sign and the magnitude of c there, whether the byte below borrows
  // one or not (it does for c = 0, which becomes -0); the other bits are masked later.
  const uint32_t even = (w & 0x0f0f0f0fu) * 18u - 0x0f0f0f0fu;
  const uint32_t odd = Select(0x80808080u, w, w >> 3);
  constexpr uint32_t kUsed = 0x8e008e00u;
  pairs[0] = (even << 8) & kUsed;
  pairs[1] = (odd << 8) & kUsed;
  pairs[2] = even & kUsed;
  pairs[3] = odd & kUsed;
}
__device__ inline void HalvesFromE4m3(uint2 w, uint32_t (&pairs)[4]) {
  const uint32_t wide[4] = {__byte_perm(w.x, w.y, 0x4404), __byte_perm(w.x, w.y, 0x5414),
                            __byte_perm(w.x, w.y, 0x6424), __byte_perm(w.x, w.y, 0x7434)};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = ((wide[i] >> 1) & 0x3f803f80u) | (wide[i] & 0x80008000u);
  }
}
// 2^(code - 127) of byte i; 2^-127 becomes 0.
__device__ inline float ScaleOf(uint32_t codes, int i) {
  const uint32_t moved = i < 3 ? codes << (23 - 8 * i) : codes >> 1;
  return __uint_as_float(moved & 0x7f800000u);
}

// 128 values of bf16, four in each lane of a warp, to e4m3 and their scale.
__device__ inline void Quantise(uint2 two, uint16_t* to, float* scale) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  float v[4] = {LowOf(two.x), HighOf(two.x), LowOf(two.y), HighOf(two.y)};
  const float amax =
      WarpMax(fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3]))));
  const uint8_t code = E4m3ScaleCode(amax);
  const float inverse = InverseE8m0(code);
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = RoundE4m3(__fmul_rn(v[i], inverse));
  const auto pair = [](float a, float b) {
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&h);
  };
  // Even lanes have values 0 to 3 of eight and write 0 4 1 5, odd lanes 4 to 7 and 2 6 3 7.
  const bool odd = lane % 2 != 0;
  const uint32_t low = pair(v[0], v[1]), high = pair(v[2], v[3]);
  const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
  const uint32_t front = odd ? other : low, back = odd ? high : other;
  reinterpret_cast<uint2*>(to)[lane] =
      make_uint2(__byte_perm(front, back, 0x5410), __byte_perm(front, back, 0x7632));
  if (lane == 0) *scale = FromE8m0(code) * kE2m1Unit;
}
// Not through L1: others have just written them.
__device__ inline uint2 LoadFour(const void* values) {
  return __ldcg(static_cast<const uint2*>(values) + threadIdx.x % kWarp);
}

// ---- products with a line ----

// Rows are moved against each other so that what a warp reads at once is in different banks, both
// 16 bytes of eight rows and 8 bytes of four.
__device__ inline int Swizzle(int row) { return (row & 3) << 1 | (row >> 2 & 1); }

// Where a lane finds x of a line: values of its column of the product, and the scales of the slots
// whose sums it has, the second one `apart` behind the first.
struct FewX {
  const uint16_t* values;
  const float* scales;
  int apart;
};

// Columns of a product of MXFP4 with tiles of up to kSlots slots: column c is of slot c / kShare
// and of the line's groups of 32 columns c % kShare, c % kShare + kShare, ..., whose x it keeps
// while other groups are multiplied as well: their sums in that column are dropped. A lane so holds
// x of a line once, not once for each slot that there might be. Sums are kept for each pair of
// groups: the lane's pairs are kPeriod apart, from lane % kPeriod on.
template <int kSlots>
struct FewColumns {
  static constexpr int kShare = 8 / kSlots;
  static constexpr int kPeriod = kSlots < 4 ? kShare / 2 : 1;
  static constexpr int kPairs = 4 / kPeriod;
  static constexpr int kRows = kSlots == 8 ? 4 : 2;  // of a pair: two rows, of two slots if all
  static constexpr int kSums = kPairs * kRows;
};

// What a lane holds while it goes through the lines of an item of MXFP4. x is loaded ahead, where
// what was there has been used for the last time.
struct FewLane {
  uint4 values[4];   // of x: kSlots of the line, or of one slot that of the next line behind it
  float2 scales[2];  // of x: of the line and of the next, or of the two slots whose sums it has
  float sums[16];
};

// A line of MXFP4, whose x is at `x`; that of the next one is `step` lines further. The first kSums
// sums are used: of rows lane / 4, upper and lower, and of slot lane % 4 / kPeriod, or of slots
// lane % 4 * 2 and the next. `rows` and `codes`: where the lane finds the line's weights and
// scales.
template <int kSlots>
__device__ inline void AddMxfp4(uint32_t rows, uint32_t codes, int step, FewX& x, FewLane& lane) {
  using C = FewColumns<kSlots>;
  const int phase = static_cast<int>(threadIdx.x) % C::kPeriod;
  uint32_t code[2][C::kPairs];  // of the pair's groups, in the lower half
  if constexpr (kSlots < 4) {
#pragma unroll
    for (int q = 0; q < C::kPairs; ++q) {
      code[0][q] = LoadHalfAt(codes + 2 * (C::kPeriod * q + phase));
      code[1][q] = LoadHalfAt(codes + 2 * (C::kPeriod * q + phase) + 8 * kScaleBytes);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint2 all = LoadPairAt(codes + i * 8 * kScaleBytes);
      code[i][0] = all.x;
      code[i][1] = all.x >> 16;
      code[i][2] = all.y;
      code[i][3] = all.y >> 16;
    }
  }
  const auto advance = [&] {
    x.values += step * kLineColumns;
    x.scales += step * 2;
  };
  if (kSlots < 8) {
    advance();
    if (kSlots == 1) lane.values[1] = LoadEight(x.values);
    lane.scales[1] = LoadTwo(x.scales);
  }
  uint32_t raw[2][4];  // of 64 columns: upper, lower, and the same of the second 32
  LoadMatrix4At(raw[0], rows);
  float own[2][2] = {};  // of a pair's groups
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    if (p < 3) LoadMatrix4At(raw[(p + 1) % 2], rows ^ ((p + 1) << 5));
    const uint32_t(&now)[4] = raw[p % 2];
    float acc[2][4] = {};
    uint32_t upper[2][4], lower[2][4];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      HalvesFromE2m1(now[2 * n], upper[n]);
      HalvesFromE2m1(now[2 * n + 1], lower[n]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint4& v = lane.values[(2 * p + n) / C::kShare % 4];
      MmaF16(acc[n], {upper[n][0], lower[n][0], upper[n][1], lower[n][1]}, {v.x, v.y});
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint4& v = lane.values[(2 * p + n) / C::kShare % 4];
      MmaF16(acc[n], {upper[n][2], lower[n][2], upper[n][3], lower[n][3]}, {v.z, v.w});
    }
    if constexpr (kSlots == 8) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int g = (2 * p + n + 4) % 8;
        lane.values[g % 4] = LoadEight(x.values + 32 * g);
      }
      if (p == 1) advance();
    } else if constexpr (kSlots > 1) {
      const int i = p * kSlots / 4;
      if (p % (4 / kSlots) == 4 / kSlots - 1) {
        lane.values[i] = LoadEight(x.values + i * (kLineColumns / kSlots));
      }
    }
    const int q = p / C::kPeriod;
    if constexpr (kSlots == 8) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 of_x = lane.scales[j % 2];
        float part = __fmul_rn(acc[0][j], ScaleOf(code[j / 2][p], 0));
        part = __fmaf_rn(acc[1][j], ScaleOf(code[j / 2][p], 1), part);
        float& sum = lane.sums[p * 4 + j];
        sum = __fmaf_rn(part, p < 2 ? of_x.x : of_x.y, sum);
      }
    } else {
      const bool mine = p % C::kPeriod == phase;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        own[0][i] = mine ? acc[0][2 * i] : own[0][i];
        own[1][i] = mine ? acc[1][2 * i + 1] : own[1][i];
      }
      if (p % C::kPeriod == C::kPeriod - 1) {
        // 128 columns of x: the pairs 0 and 1, or 2 and 3.
        const bool first = (q * C::kPeriod + phase) < 2;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float part = __fmul_rn(own[0][i], ScaleOf(code[i][q], 0));
          part = __fmaf_rn(own[1][i], ScaleOf(code[i][q], 1), part);
          float& sum = lane.sums[q * 2 + i];
          sum = __fmaf_rn(part, first ? lane.scales[0].x : lane.scales[0].y, sum);
        }
      }
    }
  }
  if (kSlots == 1) lane.values[0] = lane.values[1];
  if (kSlots < 8) {
    lane.scales[0] = lane.scales[1];
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) lane.scales[i] = LoadTwo(x.scales + i * x.apart);
  }
}

// What a lane finds where, of MXFP4, from a line on: its row of a matrix that ldmatrix loads; and
// from a stage's scales on, codes of its rows.
struct FewPlaces {
  uint32_t rows, codes;

  __device__ FewPlaces() {
    const uint32_t lane = threadIdx.x % kWarp;
    // Row lane % 8 of the upper and the lower rows, of two pieces of 16 bytes.
    rows = Kept(lane / 8 % 2 * kHalfBytes + lane % 8 * kLineBytes +
                ((lane / 16 ^ static_cast<uint32_t>(Swizzle(static_cast<int>(lane % 8)))) << 4));
    codes = Kept(kStageWeights + lane / 4 * kScaleBytes);
  }
};

// Sums over the pairs: (0 + 1) + (2 + 3), whoever has them.
template <int kSlots>
__device__ inline void AddPairs(const float (&sums)[16], float (&result)[4]) {
  using C = FewColumns<kSlots>;
#pragma unroll
  for (int i = 0; i < C::kRows; ++i) {
    float even = sums[i], odd = sums[C::kSums - C::kRows + i];
    if constexpr (kSlots == 1) {
      even = __fadd_rn(even, __shfl_xor_sync(0xffffffffu, even, 1));
      odd = __shfl_xor_sync(0xffffffffu, even, 2);
    } else if constexpr (kSlots == 2) {
      even = __fadd_rn(even, __shfl_xor_sync(0xffffffffu, even, 1));
      odd = __fadd_rn(odd, __shfl_xor_sync(0xffffffffu, odd, 1));
    } else {
      even = __fadd_rn(even, sums[C::kRows + i]);
      odd = __fadd_rn(sums[2 * C::kRows + i], odd);
    }
    result[kSlots == 8 ? i : 2 * i] = __fadd_rn(even, odd);
  }
}

// The products of a line for 2^slots_log slots, and the sums of all pairs.
template <bool kOne>
__device__ inline void AddLine(int slots_log, uint32_t rows, uint32_t codes, int step, FewX& x,
                               FewLane& lane) {
  if constexpr (kOne) return AddMxfp4<1>(rows, codes, step, x, lane);
  switch (slots_log) {
    case 0:
      return AddMxfp4<1>(rows, codes, step, x, lane);
    case 1:
      return AddMxfp4<2>(rows, codes, step, x, lane);
    case 2:
      return AddMxfp4<4>(rows, codes, step, x, lane);
    default:
      return AddMxfp4<8>(rows, codes, step, x, lane);
  }
}
template <bool kOne>
__device__ inline void AddSums(int slots_log, FewLane& lane, float (&result)[4]) {
  float part[4] = {};
  if (kOne || slots_log == 0) {
    AddPairs<1>(lane.sums, part);
  } else if (slots_log == 1) {
    AddPairs<2>(lane.sums, part);
  } else if (slots_log == 2) {
    AddPairs<4>(lane.sums, part);
  } else {
    AddPairs<8>(lane.sums, part);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) result[i] = __fadd_rn(result[i], part[i]);
#pragma unroll
  for (int i = 0; i < 16; ++i) lane.sums[i] = 0;
}

// An item of MXFP4 for 2^slots_log slots, or one, whose stages `copies` brings. `result`, added up
// segment by segment, is of rows lane / 4, upper and lower (j / 2), and of slot lane % 4 / kPeriod,
// or of slots lane % 4 * 2 + j % 2.
template <bool kOne, typename Copies>
__device__ inline void MultiplyMxfp4(Copies& copies, int slots_log, int stages, const FewPlaces& at,
                                     FewX x, float (&result)[4]) {
  FewLane lane = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >> slots_log == 0) lane.values[i] = LoadEight(x.values + (i * kLineColumns >> slots_log));
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) lane.scales[i] = LoadTwo(x.scales + i * x.apart);
#pragma unroll 1
  for (; stages > 0; --stages) {
    const uint32_t stage = copies.Take();
    uint32_t rows = stage + at.rows, codes = stage + at.codes;
#pragma unroll 1
    for (int n = 0; n < kStageLines; ++n, rows += kLineRows, codes += 8) {
      const int step = stages > 1 || n + 1 < kStageLines ? 1 : 0;
      AddLine<kOne>(slots_log, rows, codes, step, x, lane);
    }
    copies.GiveBack();
    if (stages % kSegmentStages == 1) AddSums<kOne>(slots_log, lane, result);
  }
}

// A warp's lines of an item of FP8. `scales` of the upper and the lower rows, of the first line.
template <int kOctets, typename Copies>
__device__ inline void MultiplyFp8(Copies& copies, int lines, int octets,
                                   const uint8_t* const (&scales)[2], const FewX (&x)[kOctets],
                                   float (&sums)[kOctets][4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), row = lane / 4;
  const uint32_t rows = row * kLineBytes + ((lane % 4 / 2 ^ Swizzle(row)) << 4) + lane % 2 * 8;
  uint32_t stage = 0;
#pragma unroll 1
  for (int line = 0; line < lines; ++line) {
    const uint32_t codes[2] = {LoadCode(scales[0] + line), LoadCode(scales[1] + line)};
    if (line % kStageLines == 0) stage = copies.Take();
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      if (o >= octets) break;
      uint4 values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] = LoadEight(x[o].values + (line * 128 + 32 * i));
      const float x_scales[2] = {LoadOne(x[o].scales + line),
                                 LoadOne(x[o].scales + x[o].apart + line)};
      float acc[2][4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t from = stage + line % 2 * kLineRows + (rows ^ (i << 5));
        uint32_t upper[4], lower[4];
        HalvesFromE4m3(LoadPairAt(from), upper);
        HalvesFromE4m3(LoadPairAt(from + kHalfBytes), lower);
        const uint4& v = values[i];
        MmaF16(acc[i % 2], {upper[0], lower[0], upper[1], lower[1]}, {v.x, v.y});
        MmaF16(acc[i % 2], {upper[2], lower[2], upper[3], lower[3]}, {v.z, v.w});
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float scale = FromE8m0(static_cast<uint8_t>(codes[j / 2])) * kE4m3OfE2m1Unit;
        sums[o][j] = __fmaf_rn(__fadd_rn(acc[0][j], acc[1][j]), __fmul_rn(scale, x_scales[j % 2]),
                               sums[o][j]);
      }
    }
    if (line % kStageLines == kStageLines - 1 || line + 1 == lines) copies.GiveBack();
  }
}

}  // namespace
}  // namespace seacliff::experts
