// sm_90a row of linear: e4m3 times e4m3 on the warpgroup tensor cores, for many tokens.
//
// A block has three warpgroups. One brings tiles of x and w into a ring in shared memory with the
// copy engine; two multiply, each half of the tile's tokens. A ring slot holds one block of 128
// columns, the unit in which both operands are scaled: its sum starts from zero on the tensor cores
// and is then added to f32 sums with its scale, in ascending order (kernels/linear/op.h).
#include <cuda.h>  // types alone: the driver's library is not linked

#include <algorithm>

#include "kernels/common/cuda.cuh"
#include "kernels/linear/op.h"

namespace seacliff::linear {
namespace {

using cuda::CeilDiv;
using cuda::kWarp;

constexpr int kBlock = 128;  // columns of a slot, and rows of weights of a tile
constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads;
constexpr int kConsumers = 2 * kGroupThreads;  // threads that multiply
constexpr int kSums = 64;         // that a thread has of a product of 64 tokens by 128 rows
constexpr int kMostTokens = 256;  // of a tile; scales of x are padded to a multiple of this
constexpr int kSlots = 4;
constexpr int kTileTurn = 16;  // tiles of tokens that share a tile of rows one after the other

// Shared memory of a slot: x, w, scales of x. The first two are read with a swizzle that repeats
// every 1,024 bytes, and stand at multiples of that.
template <int kTall>  // 64 tokens that each of the two warpgroups takes
struct Slot {
  static constexpr int kTokens = 2 * 64 * kTall;
  static constexpr int kX = kTokens * kBlock, kW = kBlock * kBlock, kScales = kTokens * 4;
  static constexpr int kCopied = kX + kW + kScales;
};
template <int kTall>
constexpr int64_t SharedBytes() {
  return 1024 + int64_t{kSlots} * Slot<kTall>::kCopied + 2 * kSlots * 8;
}

// ---- barriers in shared memory ----

__device__ inline uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ inline void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals)
               : "memory");
}
__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
__device__ inline void ArriveExpecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Until the phase of this parity is over; that of parity 1 is, before the first one.
__device__ inline void Wait(uint32_t barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// Which slot is next, and in which phase its barriers are.
struct Turn {
  uint32_t slot = 0, phase = 0;
  __device__ void Next() {
    if (++slot == kSlots) {
      slot = 0;
      phase ^= 1;
    }
  }
};

// ---- the copy engine ----

// The box of `map` at (column, row) to shared memory; what lies outside the matrix becomes zero.
__device__ inline void CopyBox(uint32_t to, const CUtensorMap* map, int column, int row,
                               uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
__device__ inline void CopyBytes(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- the tensor cores ----

// How they find rows of 128 bytes in shared memory: swizzled, eight rows each 1,024 bytes apart.
// Columns 32 i on are 32 i bytes further.
__device__ inline uint64_t Describe(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{1024 >> 4} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;  // leading offset, of no meaning here
  return kSwizzle128 | kEightRows | kUnused | ((address & 0x3ffff) >> 4);
}

#define SC_SUMS4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SC_SUMS16(i) SC_SUMS4(i), SC_SUMS4(i + 4), SC_SUMS4(i + 8), SC_SUMS4(i + 12)
#define SC_SUMS64 SC_SUMS16(0), SC_SUMS16(16), SC_SUMS16(32), SC_SUMS16(48)

// d (+)= a b of 64 tokens by 128 rows by 32 columns. With warp w, g = lane / 4 and t = lane % 4 of
// the warpgroup, d[4 j] is of token 16 w + g and row 8 j + 2 t, d[4 j + 1] of the next row, and the
// other two are of token 16 w + g + 8.
__device__ inline void Multiply(float (&d)[kSums], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1;\n"
      "}\n"
      : SC_SUMS64
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
// The sums are named, so that no use of them moves before this.
__device__ inline void WaitForProducts(float (&d)[kSums]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;\n" : SC_SUMS64::"memory");
}

// ---- x ----

constexpr int kQuantiseThreads = 256, kQuantiseTokens = 2 * kQuantiseThreads / 16;

__device__ inline uint32_t E4m3Pair(float low, float high) {  // nearest, ties to even, saturating
  uint16_t two;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(two) : "f"(high), "f"(low));
  return two;
}

// 128 columns of 32 tokens; 16 lanes have a token. `scales`: [cols / 128, padded tokens].
__global__ void __launch_bounds__(kQuantiseThreads)
    QuantiseKernel(const Bf16* x, int32_t tokens, int32_t cols, int64_t padded, uint8_t* codes,
                   float* scales) {
  const int blocks = cols / kBlock, block = static_cast<int>(blockIdx.x) % blocks;
  const int lane = threadIdx.x % 16;
  const int first = static_cast<int>(blockIdx.x) / blocks * kQuantiseTokens + threadIdx.x / 16;
  uint4 raw[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int token = first + i * (kQuantiseTokens / 2);
    if (token >= tokens) continue;
    const int64_t at = static_cast<int64_t>(token) * cols + block * kBlock + 8 * lane;
    raw[i] = *reinterpret_cast<const uint4*>(x + at);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int token = first + i * (kQuantiseTokens / 2);
    const uint32_t words[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
    float amax = 0;
#pragma unroll
    for (const uint32_t two : words) {
      amax = fmaxf(amax, fmaxf(fabsf(cuda::LowOf(two)), fabsf(cuda::HighOf(two))));
    }
#pragma unroll
    for (int offset = 8; offset > 0; offset /= 2) {
      amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, offset));
    }
    if (token >= tokens) continue;  // after the whole warp's exchange
    const uint8_t code = cuda::E4m3ScaleCode(amax);
    const float inverse = cuda::InverseE8m0(code);
    uint32_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      pairs[j] = E4m3Pair(__fmul_rn(cuda::LowOf(words[j]), inverse),
                          __fmul_rn(cuda::HighOf(words[j]), inverse));
    }
    const int64_t at = static_cast<int64_t>(token) * cols + block * kBlock + 8 * lane;
    *reinterpret_cast<uint2*>(codes + at) =
        make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
    if (lane == 0) scales[block * padded + token] = cuda::FromE8m0(code);
  }
}

// ---- the product ----

struct Work {
  const float* x_scales;    // [cols / 128, padded]
  const uint8_t* w_scales;  // [rows / 128, cols / 128]
  int64_t padded;
  int32_t tokens, rows, blocks;  // blocks: of 128 columns
  int32_t token_tiles, row_tiles;
  void* out;
  bool f32;
};

struct Tile {
  int32_t token, row;  // tiles
};
// kTileTurn tiles of tokens go through all rows together, so that blocks that run at the same time
// share both operands in L2.
__device__ inline Tile TileAt(const Work& p, int index) {
  const int turn = kTileTurn * p.row_tiles, first = index / turn * kTileTurn;
  const int width = min(kTileTurn, p.token_tiles - first), within = index % turn;
  return {first + within % width, within / width};
}

// Lane t of four has word i of rows 8 i + 2 t, + 1; afterwards it has words 0 to 3 of rows 8 t on.
__device__ inline void Transpose4(uint32_t (&w)[4], int t) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & step) != 0) continue;
      const bool upper = (t & step) != 0;
      const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? w[i] : w[i + step], step);
      w[i] = upper ? other : w[i];
      w[i + step] = upper ? w[i + step] : other;
    }
  }
}

// `token` and `row` are the first ones of a warp's sums; the half of eight tokens further is 1.
__device__ inline void StoreSums(const Work& p, const float (&sums)[kSums], int token, int row,
                                 int half) {
  const int lane = threadIdx.x % kWarp, t = lane % 4;
  const int mine = token + lane / 4 + 8 * half;
  const bool there = mine < p.tokens;
  const int64_t at = static_cast<int64_t>(mine) * p.rows + row;
  if (p.f32) {
    auto* out = static_cast<float*>(p.out) + at + 2 * t;
#pragma unroll
    for (int j = 0; j < kSums / 4; ++j) {
      const float2 two = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
      if (there) *reinterpret_cast<float2*>(out + 8 * j) = two;
    }
    return;
  }
  auto* out = static_cast<Bf16*>(p.out) + at + 8 * t;
#pragma unroll
  for (int j = 0; j < kSums / 4; j += 4) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = cuda::Bf16Pair(sums[4 * (j + i) + 2 * half], sums[4 * (j + i) + 2 * half + 1]);
    }
    Transpose4(words, t);
    if (there) {
      *reinterpret_cast<uint4*>(out + 8 * j) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

template <int kTall>
__global__ void __launch_bounds__(kThreads, 1)
    ProductKernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                  const __grid_constant__ Work p) {
  using S = Slot<kTall>;
  extern __shared__ uint8_t raw[];
  // ---- shared memory: x of all slots, w of all slots, scales, barriers ----
  const uint32_t start = SharedAddress(raw), base = (start + 1023) / 1024 * 1024;
  const uint32_t xs = base, ws = xs + kSlots * S::kX, scales = ws + kSlots * S::kW;
  const uint32_t full = scales + kSlots * S::kScales, empty = full + kSlots * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      InitBarrier(full + 8 * i, 1);
      InitBarrier(empty + 8 * i, kConsumers);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  }
  __syncthreads();

  const int tiles = p.token_tiles * p.row_tiles;
  const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  Turn turn;
  if (group == 0) {
    // ---- the copies ----
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n");
    if (threadIdx.x != 0) return;
    for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
      const Tile tile = TileAt(p, index);
      const int token = tile.token * S::kTokens, row = tile.row * kBlock;
      for (int block = 0; block < p.blocks; ++block, turn.Next()) {
        const uint32_t slot = turn.slot, barrier = full + 8 * slot;
        Wait(empty + 8 * slot, turn.phase ^ 1);
        ArriveExpecting(barrier, S::kCopied);
        CopyBox(xs + slot * S::kX, &x, block * kBlock, token, barrier);
        CopyBox(ws + slot * S::kW, &w, block * kBlock, row, barrier);
        CopyBytes(scales + slot * S::kScales, p.x_scales + block * p.padded + token, S::kScales,
                  barrier);
      }
    }
  } else {
    // ---- the products ----
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n");
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x % kGroupThreads / kWarp;
    const int half_tile = (group - 1) * 64 * kTall;  // first token of the warpgroup
    const int mine = half_tile + 16 * warp + lane / 4;
    const float* token_scales = reinterpret_cast<const float*>(raw + (scales - start));
    float sums[kTall][kSums], part[kSums];
#pragma unroll
    for (int i = 0; i < kSums; ++i) part[i] = 0;
    for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
      const Tile tile = TileAt(p, index);
      const uint8_t* row_scales = p.w_scales + static_cast<int64_t>(tile.row) * p.blocks;
#pragma unroll
      for (int h = 0; h < kTall; ++h) {
#pragma unroll
        for (int i = 0; i < kSums; ++i) sums[h][i] = 0;
      }
      for (int block = 0; block < p.blocks; ++block, turn.Next()) {
        const uint32_t slot = turn.slot;
        const float row_scale = cuda::FromE8m0(__ldg(row_scales + block));
        Wait(full + 8 * slot, turn.phase);
        __syncwarp();
        const uint64_t b = Describe(ws + slot * S::kW);
        const uint64_t a = Describe(xs + slot * S::kX + half_tile * kBlock);
#pragma unroll
        for (int h = 0; h < kTall; ++h) {
          BeginProducts();
#pragma unroll
          for (int k = 0; k < kBlock / 32; ++k) {
            Multiply(part, a + h * (64 * kBlock >> 4) + k * (32 >> 4), b + k * (32 >> 4), k != 0);
          }
          CommitProducts();
          const float* of_slot = token_scales + slot * S::kTokens + mine + 64 * h;
          const float low = of_slot[0] * row_scale, high = of_slot[8] * row_scale;
          WaitForProducts(part);
          // Every thread says so: each has read scales of the slot itself.
          if (h == kTall - 1) Arrive(empty + 8 * slot);
#pragma unroll
          for (int i = 0; i < kSums; ++i) {
            sums[h][i] = __fmaf_rn(part[i], i % 4 < 2 ? low : high, sums[h][i]);
          }
        }
      }
#pragma unroll
      for (int h = 0; h < kTall; ++h) {
        const int token = tile.token * S::kTokens + half_tile + 64 * h + 16 * warp;
        StoreSums(p, sums[h], token, tile.row * kBlock, 0);
        StoreSums(p, sums[h], token, tile.row * kBlock, 1);
      }
    }
  }
}

// ---- the host's side ----

using EncodeFunction = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                    const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                    const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

EncodeFunction FindEncode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                            cudaEnableDefault, &result);
  const bool there = code == cudaSuccess && result == cudaDriverEntryPointSuccess;
  return there ? reinterpret_cast<EncodeFunction>(found) : nullptr;
}

// Boxes of box_rows by 128 of the bytes [rows, cols] at data.
bool Encode(Context& k, const void* data, int64_t rows, int64_t cols, int box_rows,
            CUtensorMap* map) {
  static const EncodeFunction encode = FindEncode();
  if (encode == nullptr) {
    k.Fail(Internal("CUDA: linear: the driver has no cuTensorMapEncodeTiled"));
    return false;
  }
  const cuuint64_t shape[] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(cols)};
  const cuuint32_t box[] = {kBlock, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  const CUresult code =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(data), shape, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code == CUDA_SUCCESS) return true;
  k.Fail(Internal("CUDA: linear: cuTensorMapEncodeTiled: error " +
                  std::to_string(static_cast<int>(code))));
  return false;
}

template <int kTall>
void LaunchProduct(Context& k, const uint8_t* codes, const Matrix& w, Work work) {
  CUtensorMap x_map, w_map;
  work.token_tiles = static_cast<int32_t>(CeilDiv(work.tokens, Slot<kTall>::kTokens));
  if (!Encode(k, codes, work.tokens, w.cols, Slot<kTall>::kTokens, &x_map) ||
      !Encode(k, w.data, w.rows, w.cols, kBlock, &w_map)) {
    return;
  }
  const int64_t tiles = int64_t{work.token_tiles} * work.row_tiles;
  const auto grid = static_cast<uint32_t>(std::min<int64_t>(tiles, cuda::Multiprocessors(k)));
  cuda::Launch(k, "linear", ProductKernel<kTall>, grid, kThreads, SharedBytes<kTall>(), x_map,
               w_map, work);
}

}  // namespace

void Sm90(Context& k, const LinearArgs& a) {
  const int64_t tokens = a.x.shape[0], cols = a.w.cols, blocks = cols / kBlock;
  const int64_t padded = CeilDiv(tokens, kMostTokens) * kMostTokens;
  // The codes, then the scales. Padding less than doubles tokens (Sm90Takes), so that both are at
  // most 17 / 16 bytes a value.
  auto* codes = static_cast<uint8_t*>(k.device()->Workspace(CudaWorkspace(tokens, cols)));
  if (codes == nullptr) return;  // the device holds the error
  auto* scales = reinterpret_cast<float*>(codes + tokens * cols);
  cuda::Launch(k, "linear", QuantiseKernel,
               static_cast<uint32_t>(CeilDiv(tokens, kQuantiseTokens) * blocks), kQuantiseThreads,
               0, static_cast<const Bf16*>(a.x.data), static_cast<int32_t>(tokens),
               static_cast<int32_t>(cols), padded, codes, scales);
  Work work = {};
  work.x_scales = scales;
  work.w_scales = reinterpret_cast<const uint8_t*>(a.w.scales);
  work.padded = padded;
  work.tokens = static_cast<int32_t>(tokens);
  work.rows = static_cast<int32_t>(a.w.rows);
  work.blocks = static_cast<int32_t>(blocks);
  work.row_tiles = work.rows / kBlock;
  work.out = a.out.data;
  work.f32 = a.out.exact();
  // Tiles of 256 tokens read less; smaller ones where these find a processor each.
  if (CeilDiv(tokens, 256) * work.row_tiles * 2 > cuda::Multiprocessors(k)) {
    LaunchProduct<2>(k, codes, a.w, work);
  } else {
    LaunchProduct<1>(k, codes, a.w, work);
  }
}

}  // namespace seacliff::linear
