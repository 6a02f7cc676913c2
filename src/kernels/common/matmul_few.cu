// Kernels of matmul_few.cuh.
//
// A block has some tiles of 16 rows of one part. Its warps deal out the blocks of 128 columns and,
// where these are few, the tiles: a warp's unit is one block of one tile. Each warp copies its own
// weights to shared memory, kStages steps ahead, with no need to wait for another. The units' sums
// meet in shared memory. Where a warp can hold its part of x, FewKernel; else StripKernel.
#include <algorithm>

#include "kernels/common/matmul_few_strips.cuh"

namespace seacliff::cuda {
namespace {

using namespace few;  // NOLINT: pieces of these kernels

constexpr int kSumBytes = 8 * 1024;  // of one of FewKernel's two buffers of sums
constexpr int kFewStages = 4;
constexpr int kFewShared = FeedBytes(kFewStages) + 2 * kSumBytes;  // without scales

// The eight columns of a product with the tensor cores are those of x that the warp holds: `slots`
// tokens of each of its blocks one after the other.
template <Kind K>
__device__ __forceinline__ void MultiplyPart(const Part& part, const Work& p, uint8_t* shared) {
  constexpr int kStages = kFewStages;
  // ---- shared memory ----
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  uint8_t* ring = shared + warp * kStages * kStepBytes;
  auto* sums = reinterpret_cast<float*>(shared + FeedBytes(kStages));
  uint8_t* scales = shared + p.scales_at;

  // ---- load: weights, then what earlier launches have written ----
  const int column_warp = warp & (p.column_warps - 1), row_warp = warp >> p.column_warps_log;
  const int index = static_cast<int>(blockIdx.x) - part.first_block;
  const int first_tile = index * part.tiles + min(index, part.more);
  const int end_tile = first_tile + part.tiles + (index < part.more ? 1 : 0);
  const ScaleCopy<K> scale_copy(part, p, first_tile, end_tile);
  Feed<K, kStages> feed(part, p, first_tile + row_warp, end_tile - first_tile - row_warp,
                        column_warp, ring);
#pragma unroll
  for (int i = 0; i < kStages; ++i) feed.Next();
  scale_copy.Finish(part, p, scales, [](uint8_t code) { return code; });
  WaitForEarlier();
  XPart x;
  float x_scale[2] = {1.0f, 1.0f};  // of the lane's columns of results
  const int token = lane / 4 & (p.slots - 1);
  const int block_of_x = column_warp + lane / 4 / p.slots * p.column_warps;
  const bool there = token < p.tokens && block_of_x < p.blocks;
  LoadX<K>(there ? part.x + token * p.x_stride + block_of_x * kBlock : nullptr,
           p.cols - block_of_x * kBlock, x);
  if constexpr (K == Kind::kFp8Both) {
    const float scale = PrepareX(x) * kPairUnit;
    x_scale[0] = __shfl_sync(0xffffffffu, scale, lane % 4 * 8);
    x_scale[1] = __shfl_sync(0xffffffffu, scale, lane % 4 * 8 + 4);
  }
  // Loads of the next launch's weights would delay that of x.
  if (p.late && x_scale[0] != -1.0f) LetNextStart();

  // ---- compute ----
  const int wide = p.slots == 1 ? 1 : p.slots / 2;
  const int unit_sums = 16 * p.slots, round_sums = kWarps * unit_sums;
  // The sums of a unit to where they are added up.
  const auto put = [&](const float(&acc)[4], int tile, int block, int round, float* to) {
    float factor[2] = {1.0f, 1.0f};
    if constexpr (K != Kind::kBf16) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        factor[h] =
            RowFactor(scales, scale_copy.first(), part, p, tile * 16 + lane / 4 + 8 * h, block);
      }
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int t = lane % 4 * 2 - round * p.slots + e;
      if (t < 0 || t >= p.tokens) continue;
      float* at = to + ((t & 1) * 8 + lane / 4) * wide + t / 2;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float v = acc[2 * h + e];
        if constexpr (K == Kind::kFp8Both) v = __fmul_rn(v, x_scale[e]);
        if constexpr (K != Kind::kBf16) v = __fmul_rn(v, factor[h]);
        at[h * (unit_sums / 2)] = v;
      }
    }
  };

  int slot = 0;
  float* buffer = sums;
  for (int tile = first_tile; tile < end_tile; tile += p.tiles_at_once << p.row_warps_log) {
    const int end = min(end_tile, tile + (p.tiles_at_once << p.row_warps_log));
    float* to = buffer + warp * unit_sums;
    for (int i = tile + row_warp; i < end; i += 2 << p.row_warps_log) {
      const bool pair = i + p.row_warps < end;
      for (int r = 0; r < p.rounds; ++r) {
        const int block = r * p.column_warps + column_warp;
        float* at = to + r * round_sums;
        if (block >= p.blocks) break;
        float acc[2][4];
        if (pair) {
          MultiplyUnits<K, 2>(feed, ring, slot, x, acc);
          put(acc[0], i, block, r, at);
          put(acc[1], i + p.row_warps, block, r, at + p.rounds * round_sums);
        } else if (K != Kind::kBf16 && block + p.column_warps < p.blocks) {
          MultiplyUnits<K, 2>(feed, ring, slot, x, acc);
          put(acc[0], i, block, r, at);
          put(acc[1], i, block + p.column_warps, r + 1, at + round_sums);
          ++r;
        } else {
          float one[1][4];
          MultiplyUnits<K, 1>(feed, ring, slot, x, one);
          put(one[0], i, block, r, at);
        }
      }
      to += 2 * p.rounds * round_sums;
    }
    __syncthreads();

    // ---- add up and store ----
#pragma unroll 1
    for (int n = threadIdx.x; n < (end - tile) * unit_sums; n += kThreads) {
      const int at = n % unit_sums, i = n / unit_sums;
      const int low = at & (8 * wide - 1), high = at / (8 * wide);
      const int t = (low & (wide - 1)) * 2 + (p.slots == 1 ? 0 : high % 2);
      const int row = (tile + i) * 16 + (p.slots == 1 ? high : high / 2) * 8 + low / wide;
      if (t >= p.tokens || row >= part.rows) continue;
      const float* from = buffer + (i >> p.row_warps_log) * p.rounds * round_sums +
                          ((i & (p.row_warps - 1)) << p.column_warps_log) * unit_sums + at;
      float sum = 0;
      for (int r = 0; r < p.rounds; ++r, from += round_sums) {
        const int ready = min(p.column_warps, p.blocks - (r << p.column_warps_log));
        if (ready == kWarps) {
#pragma unroll
          for (int w = 0; w < kWarps; ++w) sum = __fadd_rn(sum, from[w * unit_sums]);
        } else {
          for (int w = 0; w < ready; ++w) sum = __fadd_rn(sum, from[w * unit_sums]);
        }
      }
      StoreResult(part, t, row, sum);
    }
    buffer = buffer == sums ? sums + kSumBytes / 4 : sums;
  }
}

// Registers as if a block had one warp more, so that a small kernel has room beside two of these.
__global__ void __launch_bounds__(kThreads + kWarp, 2) FewKernel(const __grid_constant__ Work p) {
  extern __shared__ __align__(16) uint8_t shared[];
  if (!p.late) LetNextStart();
  const Part& part = PartOfBlock(p);
  switch (part.kind) {
    case Kind::kBf16:
      return MultiplyPart<Kind::kBf16>(part, p, shared);
    case Kind::kFp8:
      return MultiplyPart<Kind::kFp8>(part, p, shared);
    case Kind::kFp8Both:
      return MultiplyPart<Kind::kFp8Both>(part, p, shared);
  }
}

// ---- host ----

int64_t RoundUp(int64_t v, int64_t to) { return CeilDiv(v, to) * to; }

// Tokens to a power of two, and units of a warp and tile.
int Slots(int64_t tokens) { return tokens <= 2 ? static_cast<int>(tokens) : tokens <= 4 ? 4 : 8; }
int64_t Rounds(int64_t cols) { return CeilDiv(CeilDiv(cols, kBlock), kWarps); }

// More weights of a block than shared memory takes at once: the next launch's may come early.
constexpr int64_t kManyBytes = 160 * 1024;

// Whether a warp can hold its part of x: one token of up to 8,192 columns, two of 4,096, four of
// 2,048. Eight of 1,024 take longer than with StripKernel.
bool HoldsX(int64_t tokens, int64_t cols) {
  return tokens <= 4 && Slots(tokens) * Rounds(cols) <= 8;
}

// Shared memory of a block of which two are to fit a multiprocessor, at most.
constexpr int64_t kSharedOfTwo = 88 * 1024;
// Blocks of this size that a multiprocessor takes at once.
int64_t BlocksThatFit(Context& k, int64_t shared) {
  constexpr int64_t kReserved = 1024;  // of each block
  return std::max<int64_t>(1, (SharedLimit(k) + kReserved) / (shared + kReserved));
}

// `work` is complete but for what depends on the kernel.
void LaunchFew(Context& k, const char* op, dim3 grid, int64_t scale_bytes, Work work) {
  work.slots = Slots(work.tokens);
  // Of a pair of tiles at least: 2 * 8 slots * 16 rows * 8 warps * 4 bytes.
  work.tiles_at_once = kSumBytes / (kWarps * 16 * work.slots * 4 * 2) / work.rounds * 2;
  work.scales_at = kFewShared;
  LaunchOverlapped(k, op, FewKernel, grid, kThreads, kFewShared + scale_bytes, work);
}

// Writes x through e4m3 into the workspace for the parts that want it, and where it is into them.
// False after an error.
template <int kOctets>
bool Quantise(Context& k, const char* op, const FewProduct& p, Work& work) {
  bool any = false;
  for (const FewPart& part : p.parts) any = any || part.quantise;
  if (!any) return true;
  const int64_t matrices = p.x_step == 0 ? 1 : work.parts;
  const int64_t octets = int64_t{work.blocks} * kOctets;  // of a matrix, of 128 columns each
  const int64_t code_bytes = matrices * octets * 8 * kBlock;
  auto* codes = static_cast<uint8_t*>(k.device()->Workspace(code_bytes + matrices * octets * 32));
  if (codes == nullptr) return false;  // the device holds the error
  auto* scales = reinterpret_cast<float*>(codes + code_bytes);
  for (int i = 0; i < work.parts; ++i) {
    const int64_t first = p.x_step == 0 ? 0 : i * octets * 8;  // token
    work.part[i].codes = reinterpret_cast<const uint4*>(codes + first * kBlock);
    work.part[i].code_scales = scales + first;
  }
  const dim3 grid(static_cast<uint32_t>(work.blocks), kOctets, static_cast<uint32_t>(matrices));
  LaunchOverlapped(k, op, QuantiseKernel, grid, kThreads, 0, p.x, p.x_stride, p.x_step, work.tokens,
                   work.cols, reinterpret_cast<uint32_t*>(codes), scales);
  return true;
}

// As LaunchFew; `scales` and `tiles`: of a block, at most. kBlocks of a kernel fit a
// multiprocessor.
template <int kOctets, int kTiles, int kStages, int kBlocks>
void LaunchStrips(Context& k, const char* op, const FewProduct& p, dim3 grid, int64_t scales,
                  int64_t tiles, Work work) {
  using Shape = StripShape<kOctets, kTiles, kStages>;
  // All sets, if their x is all that there is of it; else as many as there is room for, since each
  // strip reads it again.
  const int64_t set_tiles = int64_t{kTiles} * work.row_warps, sets = CeilDiv(tiles, set_tiles);
  const int64_t total_bytes = set_tiles * Shape::kUnitSums * 4;
  int64_t strips = 1, totals = 0;
  if (work.rounds > 1) {
    const int64_t limit = kBlocks == 1 ? SharedLimit(k) : kSharedOfTwo;
    const int64_t room = (limit - Shape::kFixedBytes - scales * 4) / total_bytes;
    strips = CeilDiv(sets, std::clamp<int64_t>(room, 1, 8));
    totals = CeilDiv(sets, strips) * total_bytes;
  }
  work.strip = static_cast<int32_t>(CeilDiv(sets, strips));
  work.scales_at = static_cast<int32_t>(Shape::kFixedBytes + totals);
  if (!Quantise<kOctets>(k, op, p, work)) return;
  // Where one block is to have a multiprocessor, more than half of what that has.
  const int64_t least = kBlocks == 1 ? SharedLimit(k) / 2 + 1024 : 0;
  LaunchOverlapped(k, op, StripKernel<kOctets, kTiles, kStages, kBlocks>, grid, kThreads,
                   std::max(work.scales_at + scales * 4, least), work);
}

}  // namespace

void MultiplyFew(Context& k, const char* op, const FewProduct& p) {
  if (p.tokens == 0 || p.parts.empty()) return;
  const auto count = static_cast<int64_t>(p.parts.size());
  const int64_t cols = p.parts.front().w.cols;
  SC_CHECK(count <= kFewMostParts && p.tokens <= kFewMostTokens);
  Work work = {};
  work.parts = static_cast<int32_t>(count);
  work.tokens = static_cast<int32_t>(p.tokens);
  work.cols = static_cast<int32_t>(cols);
  work.blocks = static_cast<int32_t>(CeilDiv(cols, kBlock));
  work.x_stride = p.x_stride;

  // ---- how a block's warps share a tile ----
  while (1 << work.column_warps_log < std::min(kWarps, work.blocks)) ++work.column_warps_log;
  work.column_warps = 1 << work.column_warps_log;
  work.row_warps = kWarps / work.column_warps;
  while (1 << work.row_warps_log < work.row_warps) ++work.row_warps_log;
  work.rounds = static_cast<int32_t>(Rounds(cols));

  // ---- blocks of the grid: a part's share of the bytes ----
  // As many as run at once, of a size that no multiprocessor takes more than its share of: while
  // the launch before still has some of them, the others would get too many blocks of this one.
  const int64_t all = Multiprocessors(k) * (p.tokens <= 8 ? BlocksThatFit(k, kSharedOfTwo) : 1);
  int64_t bytes = 0, blocks = 0, scale_bytes = 0, most_tiles = 0;
  for (const FewPart& part : p.parts) bytes += part.rows * part.w.row_bytes();
  for (int64_t i = 0; i < count; ++i) {
    const FewPart& from = p.parts[static_cast<size_t>(i)];
    Part& to = work.part[i];
    to.w = static_cast<const uint8_t*>(from.w.data) + from.first_row * from.w.row_bytes();
    to.scales = reinterpret_cast<const uint8_t*>(from.w.scale_row(from.first_row));
    to.x = p.x + i * p.x_step;
    to.out = from.out;
    to.out_stride = from.out_stride;
    to.first_row = static_cast<int32_t>(from.first_row % kBlock);
    to.rows = static_cast<int32_t>(from.rows);
    to.f32 = from.f32;
    to.kind = from.quantise                         ? Kind::kFp8Both
              : from.w.format == WeightFormat::kFp8 ? Kind::kFp8
                                                    : Kind::kBf16;
    const int64_t tiles = CeilDiv(from.rows, 16);
    const int64_t share = all * from.rows * from.w.row_bytes() / bytes;
    const int64_t mine = std::max<int64_t>(1, std::min(tiles, share));
    to.first_block = static_cast<int32_t>(blocks);
    to.tiles = static_cast<int32_t>(tiles / mine);
    to.more = static_cast<int32_t>(tiles % mine);
    blocks += mine;
    most_tiles = std::max<int64_t>(most_tiles, to.tiles + (to.more > 0 ? 1 : 0));
    // Decoding without scales of x takes longer: such a launch is late to need the memory.
    if (to.kind == Kind::kFp8) work.late = true;
    if (to.kind != Kind::kBf16) {
      const int64_t rows_of_blocks = (to.tiles + 1) * 16 / kBlock + 2;
      scale_bytes = std::max(scale_bytes, RoundUp(rows_of_blocks * work.blocks, 16));
    }
  }
  work.late = work.late || bytes < kManyBytes * Multiprocessors(k);

  const dim3 grid(static_cast<uint32_t>(blocks));
  if (HoldsX(p.tokens, cols)) return LaunchFew(k, op, grid, scale_bytes, work);
  const auto strips = [&](auto launch) { launch(k, op, p, grid, scale_bytes, most_tiles, work); };
  // Beyond 8 tokens there are kernels for blocks of 99 KB too.
  const bool large = SharedLimit(k) >= 200 * 1024;
  if (p.tokens <= 8) {
    // Shorter waits for each other, unless there are many tiles that share what comes with a set.
    return most_tiles < 4 ? strips(LaunchStrips<1, 1, 4, 2>) : strips(LaunchStrips<1, 2, 2, 2>);
  }
  if (p.tokens <= 16) {
    return large ? strips(LaunchStrips<2, 2, 5, 1>) : strips(LaunchStrips<2, 1, 4, 1>);
  }
  return large ? strips(LaunchStrips<4, 2, 4, 1>) : strips(LaunchStrips<4, 1, 3, 1>);
}

}  // namespace seacliff::cuda
