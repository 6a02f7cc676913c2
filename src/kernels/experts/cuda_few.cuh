// Pieces of the CUDA path of experts for few tokens (cuda_few.cu): numbers, stages of weights and
// the products with them. Device code.
//
// Weights are the left factor of mma.m16n8k16. Values are f16: those of e2m1 and e4m3 are moved
// into the bits of an f16 (2^-14 and 2^-8 of their value, exact), those of x' are e4m3. What they
// must be multiplied by goes onto f32 sums: of 32 columns for MXFP4, 128 for FP8 and x.
#pragma once

#include "kernels/experts/cuda_common.cuh"

namespace seacliff::experts {
namespace {

// A stage holds 512 bytes each of 16 rows, the first eight "upper", the others "lower", and of
// MXFP4 the 16 scales of each row: four lines, one for each warp of a team.
constexpr int kTeamWarps = 4;
constexpr int kLineBytes = 128;  // of a row
constexpr int kHalfBytes = 8 * kLineBytes, kLineRows = 2 * kHalfBytes;
constexpr int kRowBytes = kTeamWarps * kLineBytes, kScaleBytes = kRowBytes / 16;
constexpr int kStageWeights = kTeamWarps * kLineRows;
constexpr int kStageBytes = kStageWeights + 16 * kScaleBytes;
constexpr int kStages = 4;  // of a team
// Scales of x are stored times this, the unit of e2m1 in an f16; e4m3's is this times 2^-6.
constexpr float kE2m1Unit = 0x1p14f, kE4m3OfE2m1Unit = 0x1p-6f;

// ---- waiting: within a block, and for all blocks ----

// Of some of a block's warps.
template <int kBarrier, int kThreads>
__device__ inline void SyncThreads() {
  asm volatile("bar.sync %0, %1;\n" ::"n"(kBarrier), "n"(kThreads) : "memory");
}

// Shared memory by its address, where pointers would cost registers.
// Keeps a number in its register: the compiler would work it out again and again.
__device__ inline uint32_t Kept(uint32_t v) {
  asm volatile("mov.u32 %0, %0;\n" : "+r"(v));
  return v;
}
__device__ inline uint32_t AddressOf(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
__device__ inline uint32_t LoadWordAt(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(v) : "r"(address));
  return v;
}
__device__ inline uint2 LoadPairAt(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];\n" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ inline float2 LoadTwoAt(uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];\n" : "=f"(v.x), "=f"(v.y) : "r"(address));
  return v;
}
__device__ inline void StoreFloatsAt(uint32_t address, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
}
__device__ inline void LoadMatrix4At(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// A barrier in shared memory whose phases alternate between parity 0 and 1, by its address. Whoever
// waits for the parity of the phase before the first one does not wait.
__device__ inline void InitBarrier(uint32_t address, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;\n" ::"r"(address), "r"(arrivals));
}
__device__ inline void ArriveAt(uint32_t address) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}\n" ::"r"(address)
               : "memory");
}
// Once this thread's copies up to here are done.
__device__ inline void ArriveWithCopies(uint32_t address) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];\n" ::"r"(address) : "memory");
}
__device__ inline void WaitAt(uint32_t address, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
  } while (done == 0);
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
__device__ inline void CopyAt(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0));
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

// Column i of eight is nibble i; pairs as in the order of x.
__device__ inline void HalvesFromE2m1(uint32_t w, uint32_t (&pairs)[4]) {
  // Each byte holds the upper one of an f16: sign, three zeros, magnitude, zero. Of the even
  // columns, 18 c - 15 has the sign and the magnitude of c there, whether the byte below borrows
  // one or not (it does for c = 0, which becomes -0); the other bits are masked later.
  const uint32_t even = (w & 0x0f0f0f0fu) * 18u - 0x0f0f0f0fu;
  const uint32_t odd = (w & 0x80808080u) | ((w >> 3) & 0x0e0e0e0eu);
  pairs[0] = (even << 8) & 0x8e008e00u;
  pairs[1] = __byte_perm(odd, 0, 0x2404);
  pairs[2] = even & 0x8e008e00u;
  pairs[3] = odd & 0xff00ff00u;
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

// ---- products with a warp's lines ----

// Rows are moved against each other so that what a warp reads at once is in different banks, both
// 16 bytes of eight rows and 8 bytes of four.
__device__ inline int Swizzle(int row) { return (row & 3) << 1 | (row >> 2 & 1); }

// A team's ring of stages, as a warp goes through it.
struct FewRing {
  uint32_t stages, full;  // addresses of the first stage and of its barrier
  uint32_t index = 0, parity = 0;
  // From a barrier that says the stage is full to the one that says it is empty.
  static constexpr uint32_t kEmpty = 2 * kStages * 8;

  __device__ uint32_t stage() const { return stages + index * kStageBytes; }
  __device__ void WaitFull() const { WaitAt(full + index * 8, parity); }
  __device__ void WaitEmpty() const { WaitAt(full + kEmpty + index * 8, parity ^ 1); }
  // The whole warp is done with the stage.
  __device__ void Leave() {
    __syncwarp();
    if (threadIdx.x % kWarp == 0) ArriveAt(full + kEmpty + index * 8);
    Next();
  }
  __device__ void Next() {
    if (++index == kStages) {
      index = 0;
      parity ^= 1;
    }
  }
};

// Where a lane finds x: values of its column of the product from column 8 (lane % 4) of the line
// on, and the scales of the tokens whose sums it has, of the line's first 128 columns.
struct FewX {
  const uint16_t* values;
  const float* scales[2];
};

// Sums are of rows lane / 4, upper and lower (j / 2), and of columns lane % 4 * 2 + j % 2 of the
// product; kHalf: of its even columns alone.

// 256 columns of MXFP4. `scales` [16][8] of the line as f32, `rows` its weights.
template <bool kHalf>
__device__ inline void AddMxfp4(uint32_t rows, uint32_t scales, const uint4 (&x)[8],
                                const float2 (&x_scales)[2], float (&sums)[4]) {
  constexpr int kEach = kHalf ? 2 : 1;
  uint32_t raw[2][4];  // of 64 columns: upper, lower, and the same of the second 32
  LoadMatrix4At(raw[0], rows);
  float part[4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    if (step < 3) LoadMatrix4At(raw[(step + 1) % 2], rows ^ ((step + 1) << 5));
    const uint32_t(&now)[4] = raw[step % 2];
    uint32_t upper[2][4], lower[2][4];
    float acc[2][4] = {};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      HalvesFromE2m1(now[2 * n], upper[n]);
      HalvesFromE2m1(now[2 * n + 1], lower[n]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint4& v = x[2 * step + n];
      MmaF16(acc[n], {upper[n][0], lower[n][0], upper[n][1], lower[n][1]}, {v.x, v.y});
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const uint4& v = x[2 * step + n];
      MmaF16(acc[n], {upper[n][2], lower[n][2], upper[n][3], lower[n][3]}, {v.z, v.w});
    }
    // Two floats each of the upper and the lower row.
    const float2 scale[2] = {LoadTwoAt(scales + step * 8), LoadTwoAt(scales + step * 8 + 256)};
#pragma unroll
    for (int j = 0; j < 4; j += kEach) {
      const float2 s = scale[j / 2];
      part[j] = step % 2 == 0 ? __fmul_rn(acc[0][j], s.x) : __fmaf_rn(acc[0][j], s.x, part[j]);
      part[j] = __fmaf_rn(acc[1][j], s.y, part[j]);
      if (step % 2 == 1) {
        const float2 of_x = x_scales[j % 2];
        sums[j] = __fmaf_rn(part[j], step == 1 ? of_x.x : of_x.y, sums[j]);
      }
    }
  }
}

// What a lane finds where, of MXFP4: its row of a matrix that ldmatrix loads, codes of scales (both
// from a stage on), and a place for the f32 of the latter and where it reads them again.
struct FewPlaces {
  uint32_t rows, codes, spread_to, spread_from;

  // `spread` [warps][16][8] floats.
  __device__ explicit FewPlaces(uint32_t spread) {
    const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, own = warp % kTeamWarps;
    // Row lane % 8 of the upper and the lower rows, of two pieces of 16 bytes.
    rows = Kept(own * kLineRows + lane / 8 % 2 * kHalfBytes + lane % 8 * kLineBytes +
                ((lane / 16 ^ static_cast<uint32_t>(Swizzle(static_cast<int>(lane % 8)))) << 4));
    codes = Kept(own * 8 + lane / 2 * kScaleBytes + lane % 2 * 4);
    spread_to = Kept(spread + warp * 512 + lane * 16);
    spread_from = Kept(spread + warp * 512 + lane / 4 * 32);
  }
};

// A team's item of MXFP4: of `lines` every fourth from the warp's own on.
template <bool kHalf, int kOctets>
__device__ inline void MultiplyMxfp4(FewRing& ring, int lines, int octets, const FewPlaces& at,
                                     FewX (&x)[kOctets], float (&sums)[kOctets][4]) {
  const int own = static_cast<int>(threadIdx.x / kWarp % kTeamWarps);
  const int own_lines = lines - own;
  for (int line = 0; line < lines; line += kTeamWarps) {
    const uint32_t stage = ring.stage();
    const bool there = line < own_lines;  // stages are whole even where the last lines are not
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      if (o >= octets || !there) break;
      uint4 values[8];
      float2 x_scales[2] = {};
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = LoadEight(x[o].values + 32 * i);
      x_scales[0] = LoadTwo(x[o].scales[0]);
      if (!kHalf) x_scales[1] = LoadTwo(x[o].scales[1]);
      x[o].values += kTeamWarps * 256;
      x[o].scales[0] += kTeamWarps * 2;
      if (!kHalf) x[o].scales[1] += kTeamWarps * 2;
      if (o == 0) {
        ring.WaitFull();
        const uint32_t four = LoadWordAt(stage + kStageWeights + at.codes);
        StoreFloatsAt(at.spread_to, make_float4(ScaleOf(four, 0), ScaleOf(four, 1),
                                                ScaleOf(four, 2), ScaleOf(four, 3)));
        __syncwarp();
      }
      AddMxfp4<kHalf>(stage + at.rows, at.spread_from, values, x_scales, sums[o]);
    }
    ring.Leave();
  }
}

// An item of FP8 that both teams share: of `lines` every eighth from the warp's own on. `scales` of
// the upper and the lower rows, of the first line.
template <int kOctets>
__device__ inline void MultiplyFp8(FewRing& ring, int lines, int octets,
                                   const uint8_t* (&scales)[2], FewX (&x)[kOctets],
                                   float (&sums)[kOctets][4]) {
  constexpr int kWays = 2 * kTeamWarps;
  const int lane = static_cast<int>(threadIdx.x % kWarp),
            row = static_cast<int>(threadIdx.x % kWarp / 4);
  const int warp = static_cast<int>(threadIdx.x / kWarp),
            own = static_cast<int>(threadIdx.x / kWarp % kTeamWarps);
  const uint32_t rows =
      own * kLineRows + row * kLineBytes + ((lane % 4 / 2 ^ Swizzle(row)) << 4) + lane % 2 * 8;
  for (int line = warp; line - own < lines; line += kWays) {
    const uint32_t stage = ring.stage();
    const bool there = line < lines;
    uint32_t codes[2] = {};
    if (there) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        codes[i] = LoadCode(scales[i]);
        scales[i] += kWays;
      }
    }
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      if (o >= octets || !there) break;
      uint4 values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] = LoadEight(x[o].values + 32 * i);
      const float x_scales[2] = {LoadOne(x[o].scales[0]), LoadOne(x[o].scales[1])};
      x[o].values += kWays * 128;
      x[o].scales[0] += kWays;
      x[o].scales[1] += kWays;
      if (o == 0) ring.WaitFull();
      float acc[2][4] = {};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t from = stage + (rows ^ (i << 5));
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
    ring.Leave();
  }
}

}  // namespace
}  // namespace seacliff::experts
