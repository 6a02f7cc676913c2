// Kernels of matmul.cuh and the choice among them.
#include <algorithm>

#include "kernels/common/matmul.cuh"
#include "kernels/common/matmul_few.cuh"
#include "kernels/linear/op.h"

namespace seacliff::cuda {
namespace {

constexpr int kPrepareThreads = 256;
constexpr int kSmallThreads = 256, kSmallThreadsMost = 512;
constexpr int kLargeRows = kLargeThreads / kWarp * 32, kLargeTokens = 64;

// A product as kernels see it.
struct Work {
  const uint8_t* w;
  const uint8_t* scales;
  int32_t rows, cols;  // of a group
  const Bf16* x;
  int64_t x_stride, x_step;
  int32_t tokens;
  ResultRows out;
  int64_t out_step;
};

__device__ inline ResultRows OutOfGroup(const Work& p, int64_t group) {
  ResultRows out = p.out;
  out.data = static_cast<char*>(out.data) + group * p.out_step * (out.f32 ? 4 : 2);
  return out;
}

// ---- activations ----

// A warp for each token and 128 columns.
__global__ void __launch_bounds__(kPrepareThreads)
    PrepareKernel(const Bf16* x, int64_t items, int32_t cols, bool quantise, bool wide,
                  bool shuffle, Bf16* out) {
  const int lane = threadIdx.x % kWarp, blocks = (cols + 127) / 128;
  const int64_t item =
      static_cast<int64_t>(blockIdx.x) * (kPrepareThreads / kWarp) + threadIdx.x / kWarp;
  if (item >= items) return;  // whole warps
  const int64_t base = item / blocks * cols;
  const int begin = static_cast<int>(item % blocks) * 128;

  // ---- load: four neighbours, or, where they could stand askew, every 32nd value ----
  float v[4] = {};
  if (wide) {
    if (begin + 4 * lane < cols) {
      const uint2 two = *reinterpret_cast<const uint2*>(x + base + begin + 4 * lane);
      v[0] = LowOf(two.x);
      v[1] = HighOf(two.x);
      v[2] = LowOf(two.y);
      v[3] = HighOf(two.y);
    }
  } else {
    for (int i = 0; i < 4; ++i) {
      const int column = begin + lane + 32 * i;
      if (column < cols) v[i] = Load(x + base + column);
    }
  }

  // ---- compute ----
  if (quantise) {
    const float amax =
        WarpMax(fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3]))));
    const int code = E4m3ScaleCode(amax);
    const float scale = FromE8m0(static_cast<uint8_t>(code));
    const float inverse = FromE8m0(static_cast<uint8_t>(254 - code));
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(RoundE4m3(__fmul_rn(v[i], inverse)), scale);
  }

  // ---- store ----
  if (!wide) {
    for (int i = 0; i < 4; ++i) {
      const int column = begin + lane + 32 * i;
      if (column < cols) Store(out + base + column, v[i]);
    }
    return;
  }
  const uint32_t low = Bf16Pair(v[0], v[1]);
  const uint32_t high = Bf16Pair(v[2], v[3]);
  uint2 two = make_uint2(low, high);
  if (shuffle) {
    // Even lanes have values 0 to 3 of eight and write 0 4 1 5, odd lanes 4 to 7 and 2 6 3 7.
    const bool odd = lane % 2 != 0;
    const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
    const uint32_t front = odd ? other : low, back = odd ? high : other;
    two = make_uint2(__byte_perm(front, back, 0x5410), __byte_perm(front, back, 0x7632));
  }
  if (begin + 4 * lane < cols) {
    *reinterpret_cast<uint2*>(out + base + begin + 4 * lane) = two;
  }
}

// ---- products ----

template <Form F, int kTiles, int kTokens>
__global__ void __launch_bounds__(kTokens == 8 ? kSmallThreadsMost : kSmallThreads,
                                  kTokens == 8 ? 1 : 2) SmallKernel(Work p) {
  extern __shared__ float parts[];
  const int64_t group = blockIdx.z;
  const int row = static_cast<int>(blockIdx.x) * 16 * kTiles;
  const int begin = static_cast<int>(blockIdx.y) * kTokens;
  WeightTile<kTiles> tile;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    tile.data[i] = p.w;
    tile.scales[i] = p.scales;
    tile.row[i] = static_cast<int32_t>(group) * p.rows + row + 16 * i;
  }
  tile.end = static_cast<int32_t>(group + 1) * p.rows;
  const TokenRows tokens{p.x + group * p.x_step, p.x_stride, nullptr, begin,
                         min(kTokens, p.tokens - begin)};
  const ResultRows out = OutOfGroup(p, group);
  MultiplySmall<F, kTiles, kTokens>(tile, tokens, p.cols, parts,
                                    [&](int token, int r, const float(&sums)[kTiles]) {
#pragma unroll
                                      for (int i = 0; i < kTiles; ++i) {
                                        const int n = row + 16 * i + r;
                                        if (n < p.rows) out.Store(begin + token, n, sums[i]);
                                      }
                                    });
}

// `tokens_first`: blocks that run at the same time share rows of weights, not tokens.
template <Form F>
__global__ void __launch_bounds__(kLargeThreads, 1) LargeKernel(Work p, bool tokens_first) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int64_t group = blockIdx.z;
  const int row_block = static_cast<int>(tokens_first ? blockIdx.y : blockIdx.x);
  const int begin = static_cast<int>(tokens_first ? blockIdx.x : blockIdx.y) * kLargeTokens;
  const int row = row_block * kLargeRows + static_cast<int>(threadIdx.x) / kWarp * 32;
  const int first = static_cast<int>(group) * p.rows;
  const WeightTile<2> tile{
      {p.w, p.w}, {p.scales, p.scales}, {first + row, first + row + 16}, first + p.rows};
  const TokenRows tokens{p.x + group * p.x_step, p.x_stride, nullptr, begin,
                         min(kLargeTokens, p.tokens - begin)};
  const ResultRows out = OutOfGroup(p, group);
  MultiplyLarge<F, kLargeTokens>(tile, tokens, p.cols, shared,
                                 [&](int token, int r, const float(&values)[2][8]) {
                                   out.Store8(begin + token, row + r, p.rows, values[0]);
                                   out.Store8(begin + token, row + 16 + r, p.rows, values[1]);
                                 });
}

// ---- the plain kernel: a warp for each value, whatever the format and the alignment ----

template <WeightFormat kFormat>
__device__ inline float DecodeWeight(const uint8_t* w, const uint8_t* scales, int64_t row,
                                     int column, int cols) {
  const int64_t at = row * cols + column;
  if constexpr (kFormat == WeightFormat::kF32) return reinterpret_cast<const float*>(w)[at];
  if constexpr (kFormat == WeightFormat::kBf16) return Load(reinterpret_cast<const Bf16*>(w) + at);
  if constexpr (kFormat == WeightFormat::kFp8) {
    return FromE4m3(w[at]) * FromE8m0(scales[row / 128 * ((cols + 127) / 128) + column / 128]);
  }
  const int shift = column % 2 * 4;
  return FromE2m1(static_cast<uint8_t>(w[at / 2] >> shift)) * FromE8m0(scales[at / 32]);
}

template <WeightFormat kFormat>
__global__ void __launch_bounds__(kSmallThreads) PlainKernel(Work p) {
  const int lane = threadIdx.x % kWarp;
  const int row = static_cast<int>(blockIdx.x) * (kSmallThreads / kWarp) + threadIdx.x / kWarp;
  const int64_t group = blockIdx.z;
  if (row >= p.rows) return;  // whole warps
  const ResultRows out = OutOfGroup(p, group);
  for (int token = static_cast<int>(blockIdx.y); token < p.tokens; token += gridDim.y) {
    const Bf16* x = p.x + group * p.x_step + token * p.x_stride;
    float sum = 0;
    for (int begin = 0; begin < p.cols; begin += kBlockColumns) {
      float part = 0;
      for (int i = 0; i < 4; ++i) {
        const int column = begin + lane + 32 * i;
        if (column >= p.cols) break;
        const float w = DecodeWeight<kFormat>(p.w, p.scales, group * p.rows + row, column, p.cols);
        part = __fmaf_rn(w, Load(x + column), part);
      }
      sum += WarpSum(part);
    }
    if (lane == 0) out.Store(token, row, sum);
  }
}

// ---- the choice ----

template <Form F, int kTiles, int kTokens>
void LaunchSmall(Context& k, const char* op, const Work& p, int64_t groups) {
  const int64_t row_tiles = CeilDiv(p.rows, 16 * kTiles), token_tiles = CeilDiv(p.tokens, kTokens);
  // Few blocks with many columns each: more warps, so that enough loads are under way.
  const bool more = kTokens == 8 && p.cols >= 16 * kBlockColumns &&
                    row_tiles * token_tiles * groups < 2 * int64_t{Multiprocessors(k)};
  const dim3 grid(static_cast<uint32_t>(row_tiles), static_cast<uint32_t>(token_tiles),
                  static_cast<uint32_t>(groups));
  Launch(k, op, SmallKernel<F, kTiles, kTokens>, grid, more ? kSmallThreadsMost : kSmallThreads,
         SmallShared(kTiles, kTokens), p);
}

template <Form F>
void LaunchFast(Context& k, const char* op, const Work& p, int64_t groups) {
  const int64_t row_tiles = CeilDiv(p.rows, kLargeRows);
  const int64_t token_tiles = CeilDiv(p.tokens, kLargeTokens);
  const int64_t processors = Multiprocessors(k);
  // Large tiles win when they keep some two fifths of the processors busy.
  if (p.tokens >= 48 && row_tiles * token_tiles * groups * 5 >= processors * 2) {
    // Blocks run in the order of x; what they read again and again should be the smaller operand.
    const int64_t weight_bytes = int64_t{p.rows} * p.cols * 16 / LaneColumns(F);
    const bool tokens_first = weight_bytes > int64_t{p.tokens} * p.cols * 2 && row_tiles <= 65535;
    const auto rows_of_grid = static_cast<uint32_t>(row_tiles);
    const auto tokens_of_grid = static_cast<uint32_t>(token_tiles);
    const dim3 grid(tokens_first ? tokens_of_grid : rows_of_grid,
                    tokens_first ? rows_of_grid : tokens_of_grid, static_cast<uint32_t>(groups));
    return Launch(k, op, LargeKernel<F>, grid, kLargeThreads, LargeShared(kLargeTokens), p,
                  tokens_first);
  }
  // Eight tokens a block while there are few blocks: these wait for memory, not for each other.
  const bool few =
      p.tokens <= 8 || CeilDiv(p.rows, 16) * CeilDiv(p.tokens, 8) * groups <= 2 * processors;
  if constexpr (F == Form::kBf16) {
    return few ? LaunchSmall<F, 1, 8>(k, op, p, groups) : LaunchSmall<F, 1, 32>(k, op, p, groups);
  } else {
    if (!few) return LaunchSmall<F, 2, 32>(k, op, p, groups);
    if constexpr (IsFp8(F)) {
      // Two tiles of rows for a warp only where that leaves blocks enough.
      if (p.rows * groups < 64 * processors) return LaunchSmall<F, 1, 8>(k, op, p, groups);
    }
    LaunchSmall<F, 2, 8>(k, op, p, groups);
  }
}

template <WeightFormat kFormat>
void LaunchPlain(Context& k, const char* op, const Work& p, int64_t groups) {
  const dim3 grid(static_cast<uint32_t>(CeilDiv(p.rows, kSmallThreads / kWarp)),
                  static_cast<uint32_t>(std::min<int64_t>(p.tokens, 4096)),
                  static_cast<uint32_t>(groups));
  Launch(k, op, PlainKernel<kFormat>, grid, kSmallThreads, 0, p);
}

// Whether kernels that read 16 bytes at a time can take it.
bool IsFast(const Product& p) {
  return CanStream(p.w) && Aligned16(p.x) && p.x_stride % 8 == 0 && p.x_step % 8 == 0;
}

void MultiplyMany(Context& k, const char* op, const Product& p) {
  const int64_t cols = p.w.cols;
  const bool fast = IsFast(p), shuffle = fast && p.w.format == WeightFormat::kMxfp4;
  Work work;
  work.w = static_cast<const uint8_t*>(p.w.data);
  work.scales = reinterpret_cast<const uint8_t*>(p.w.scales);
  work.rows = static_cast<int32_t>(p.w.rows / p.groups);
  work.cols = static_cast<int32_t>(cols);
  work.x = p.x;
  work.x_stride = p.x_stride;
  work.x_step = p.x_step;
  work.tokens = static_cast<int32_t>(p.tokens);
  const int64_t step = p.f32 ? 4 : 8;  // values of 16 bytes
  work.out = {p.out, p.out_stride, p.f32,
              Aligned16(p.out) && p.out_stride % step == 0 && p.out_step % step == 0};
  work.out_step = p.out_step;

  if (p.quantise || shuffle) {
    auto* prepared =
        static_cast<Bf16*>(k.device()->Workspace(linear::CudaWorkspace(p.tokens * p.groups, cols)));
    if (prepared == nullptr) return;  // the device holds the error
    Prepare(k, op, p.x, p.tokens * p.groups, cols, p.quantise, shuffle, prepared);
    work.x = prepared;
  }
  switch (p.w.format) {
    case WeightFormat::kF32:
      return LaunchPlain<WeightFormat::kF32>(k, op, work, p.groups);
    case WeightFormat::kBf16:
      return fast ? LaunchFast<Form::kBf16>(k, op, work, p.groups)
                  : LaunchPlain<WeightFormat::kBf16>(k, op, work, p.groups);
    case WeightFormat::kFp8:
      return fast ? LaunchFast<Form::kFp8>(k, op, work, p.groups)
                  : LaunchPlain<WeightFormat::kFp8>(k, op, work, p.groups);
    case WeightFormat::kMxfp4:
      return fast ? LaunchFast<Form::kMxfp4>(k, op, work, p.groups)
                  : LaunchPlain<WeightFormat::kMxfp4>(k, op, work, p.groups);
  }
}

}  // namespace

void Prepare(Context& k, const char* op, const Bf16* x, int64_t tokens, int64_t cols, bool quantise,
             bool shuffle, Bf16* out) {
  const int64_t items = tokens * CeilDiv(cols, 128);
  const dim3 grid(static_cast<uint32_t>(CeilDiv(items, kPrepareThreads / kWarp)));
  const bool wide = cols % 8 == 0 && Aligned16(x) && Aligned16(out);
  Launch(k, op, PrepareKernel, grid, kPrepareThreads, 0, x, items, cols, quantise, wide, shuffle,
         out);
}

void Multiply(Context& k, const char* op, const Product& p) {
  const int64_t rows = p.w.rows / p.groups;
  if (p.tokens == 0 || rows == 0) return;
  const bool few =
      p.tokens <= kFewMostTokens && IsFast(p) && p.groups <= kFewMostParts &&
      (p.w.format == WeightFormat::kFp8 || (p.w.format == WeightFormat::kBf16 && !p.quantise));
  if (!few) return MultiplyMany(k, op, p);
  FewPart parts[kFewMostParts];
  for (int64_t g = 0; g < p.groups; ++g) {
    auto* out = static_cast<char*>(p.out) + g * p.out_step * (p.f32 ? 4 : 2);
    parts[g] = {p.w, g * rows, rows, out, p.out_stride, p.f32, p.quantise};
  }
  MultiplyFew(k, op,
              {{parts, static_cast<size_t>(p.groups)},
               p.x,
               p.x_stride,
               p.groups == 1 ? 0 : p.x_step,
               p.tokens});
}

}  // namespace seacliff::cuda
