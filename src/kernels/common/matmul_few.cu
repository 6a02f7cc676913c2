// Kernels of matmul_few.cuh.
//
// A block has some tiles of 16 rows of one part. Its warps deal out the blocks of 128 columns and,
// where these are few, the tiles: a warp's unit is one block of one tile. Each warp copies its own
// weights to shared memory, kStages steps ahead, with no need to wait for another. The units' sums
// meet in shared memory.
#include <algorithm>

#include "kernels/common/e4m3_sm89.cuh"
#include "kernels/common/matmul_few.cuh"

namespace seacliff::cuda {
namespace {

constexpr int kBlock = 128;                  // columns
constexpr int kStepWidth = 128;              // bytes of a row
constexpr int kStepBytes = 16 * kStepWidth;  // what a warp copies at a time
constexpr int kThreads = 256, kWarps = kThreads / kWarp;

constexpr int kSumBytes = 8 * 1024;  // of one of two buffers of sums

__host__ __device__ constexpr int FeedBytes(int stages) { return kWarps * stages * kStepBytes; }

enum class Kind : uint8_t {
  kBf16,     // weights and x are bf16
  kFp8,      // x is bf16 as the op got it
  kFp8Both,  // x goes through e4m3, with a scale for each block
};

// A part as the kernel sees it.
struct Part {
  const uint8_t* w;
  const uint8_t* scales;  // from the row of blocks on that the first row is in
  const Bf16* x;
  void* out;
  int64_t out_stride;
  int32_t first_row;  // in its row of blocks
  int32_t rows;
  int32_t first_block, tiles, more;  // of the grid: `tiles` each, the first `more` one more
  Kind kind;
  bool f32;
};
struct Work {
  Part part[kFewMostParts];
  int32_t parts, tokens, cols, blocks;
  int64_t x_stride;
  int32_t column_warps, column_warps_log;  // that deal out a tile's blocks
  int32_t row_warps, row_warps_log;        // that deal out tiles
  int32_t rounds;                          // units of a warp and tile, at most
  int32_t slots;                           // tokens, rounded up to a power of two
  bool late;                               // the next launch starts when x is here, not at once
  int32_t tiles_at_once;                   // of a warp, that are added up at a time: an even number
};

// ---- activations ----

__device__ inline __nv_bfloat162 Pair(uint32_t two) {
  return *reinterpret_cast<const __nv_bfloat162*>(&two);
}
__device__ inline uint32_t Bits(__nv_bfloat162 two) { return *reinterpret_cast<uint32_t*>(&two); }
__device__ inline __nv_bfloat162 Twice(float v) { return __float2bfloat162_rn(v); }

// Both halves to the nearest e4m3 value, ties to even; magnitudes up to 448 (zeros lose their
// sign). 24 times the power of two at or below a value has its last bit where the value's third
// bit behind the point is, so that adding it rounds and subtracting it again is exact.
__device__ inline uint32_t RoundPairE4m3(uint32_t two) {
  const __nv_bfloat162 power = __hmax2(Pair(two & 0x7f807f80u), Twice(0x1p-6f));
  const __nv_bfloat162 sum = __hfma2(power, Twice(24.0f), Pair(two));
  return Bits(__hfma2(power, Twice(-24.0f), sum));
}
__device__ inline uint32_t MostOf(uint32_t a, uint32_t b) {
  return Bits(__hmax2(__habs2(Pair(a)), __habs2(Pair(b))));
}
__device__ inline uint8_t ScaleCode(uint32_t most) {
  return E4m3ScaleCode(fmaxf(LowOf(most), HighOf(most)));
}

// A lane's part of a block of x, 32 values: each eight meet a piece of weights.
struct XPart {
  uint4 v[4];
};

// `x`: the first value of a token's block, null for zeros. `cols`: that are left from there on.
template <Kind K>
__device__ __forceinline__ void LoadX(const Bf16* x, int cols, XPart& to) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int lane = threadIdx.x % 4;
    const int at = K == Kind::kBf16 ? i * 32 + lane * 8 : i / 2 * 64 + lane * 16 + i % 2 * 8;
    to.v[i] = make_uint4(0, 0, 0, 0);
    if (x != nullptr && at < cols) to.v[i] = *reinterpret_cast<const uint4*>(x + at);
  }
}

// bf16 to f16 of e4m3 values; returns the scale. Four lanes hold a block.
__device__ __forceinline__ float PrepareX(XPart& x) {
  uint32_t most = 0;
#pragma unroll
  for (const uint4& v : x.v) most = MostOf(most, MostOf(MostOf(v.x, v.y), MostOf(v.z, v.w)));
  most = MostOf(most, __shfl_xor_sync(0xffffffffu, most, 1));
  most = MostOf(most, __shfl_xor_sync(0xffffffffu, most, 2));
  const uint8_t code = ScaleCode(most);
  const uint32_t inverse = Bits(Twice(InverseE8m0(code)));
  const auto round = [&](uint32_t& two) {
    const uint32_t rounded = RoundPairE4m3(Times(two, inverse));
    const __half2 pair = __floats2half2_rn(LowOf(rounded), HighOf(rounded));
    two = *reinterpret_cast<const uint32_t*>(&pair);
  };
#pragma unroll
  for (uint4& v : x.v) {
    round(v.x);
    round(v.y);
    round(v.z);
    round(v.w);
  }
  return FromE8m0(code);
}

// ---- weights ----

// Copies a warp's weights to shared memory in the order in which it multiplies them: pairs of its
// tiles; of these its blocks of columns; of these the steps of 128 bytes (two if kBf16); the tiles.
template <Kind K, int kStages>
class Feed {
 public:
  // `tiles` there are from the warp's first one, `tile`, on.
  __device__ Feed(const Part& part, const Work& p, int tile, int tiles, int column_warp,
                  uint8_t* ring)
      : row_bytes_(K == Kind::kBf16 ? 2 * p.cols : p.cols), tile_step_(p.row_warps) {
    const int lane = threadIdx.x % kWarp, unit = lane % 8, row = tile * 16 + lane / 8;
    begin_ = column_warp * kBlockBytes;
    from_ = part.w + int64_t{row} * row_bytes_ + begin_ + unit * 16;
    to_ = ring + lane / 8 * kStepWidth + (unit ^ (lane / 8 & 1) << 2) * 16;
    block_step_ = p.column_warps * kBlockBytes;
    at_ = begin_;
    width_ = row_bytes_ - unit * 16;
    rows_ = part.rows - row;
    tiles_ = begin_ < row_bytes_ ? tiles : 0;
  }

  // One step more, if there is one, to the place of the oldest. What is not there, rows or columns,
  // is zero.
  __device__ __forceinline__ void Next() {
    if (tiles_ > 0) {
      const int left = at_ < width_ ? rows_ - (second_ ? 16 * tile_step_ : 0) : 0;
      const uint8_t* from = from_;
      uint8_t* to = to_ + slot_;
      if (left > 12) {
#pragma unroll
        for (int i = 0; i < 4; ++i, from += 4 * int64_t{row_bytes_}) {
          CopyAsync16(to + i * 4 * kStepWidth, from);
        }
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i, from += 4 * int64_t{row_bytes_}) {
          CopyAsync16(to + i * 4 * kStepWidth, from, 4 * i < left);
        }
      }
      Advance();
    }
    slot_ = slot_ == (kStages - 1) * kStepBytes ? 0 : slot_ + kStepBytes;
    CommitCopies();
  }

 private:
  static constexpr int kBlockBytes = K == Kind::kBf16 ? 2 * kBlock : kBlock;

  __device__ __forceinline__ void Advance() {
    const int64_t tile_bytes = int64_t{16 * tile_step_} * row_bytes_;  // to the warp's next tile
    second_ = !second_ && tiles_ > tile_step_;
    if (second_) {
      from_ += tile_bytes;
      return;
    }
    if (tiles_ > tile_step_) from_ -= tile_bytes;
    if constexpr (K == Kind::kBf16) {
      at_ ^= kStepWidth;
      if ((at_ & kStepWidth) != 0) {
        from_ += kStepWidth;
        return;
      }
      from_ -= kStepWidth;
    }
    at_ += block_step_;
    from_ += block_step_;
    if (at_ < row_bytes_) return;
    from_ += 2 * tile_bytes - (at_ - begin_);
    at_ = begin_;
    tiles_ -= 2 * tile_step_;
    rows_ -= 16 * 2 * tile_step_;
  }

  const uint8_t* from_;  // the lane's first row of what comes next
  uint8_t* to_;
  int row_bytes_, begin_, width_, tile_step_, block_step_;
  int tiles_, rows_;  // that are left, from the tile or pair and the lane's row on
  int at_, slot_ = 0;
  bool second_ = false;  // the second tile of the pair is next
};

// Eight e4m3 to four pairs of bf16. An e4m3 moved into the bits of a bf16 is 2^-120 of its value,
// subnormal ones included.
__device__ __forceinline__ void Bf16FromE4m3(uint32_t front, uint32_t back, uint32_t (&pairs)[4]) {
  const auto two = [](uint32_t wide) {
    return Times(((wide >> 4) & 0x07f007f0u) | (wide & 0x80008000u), 0x7b807b80u);
  };
  pairs[0] = two(__byte_perm(front, 0, 0x1404));
  pairs[1] = two(__byte_perm(front, 0, 0x3424));
  pairs[2] = two(__byte_perm(back, 0, 0x1404));
  pairs[3] = two(__byte_perm(back, 0, 0x3424));
}

// acc = the products of the next kCount units with x, which is f16 for kFp8Both.
template <Kind K, int kCount, int kStages>
__device__ __forceinline__ void MultiplyUnits(Feed<K, kStages>& feed, const uint8_t* ring,
                                              int& slot, const XPart& x, float (&acc)[kCount][4]) {
  constexpr int kSteps = K == Kind::kBf16 ? 2 : 1, kPieces = 4 / kSteps;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint4 raw[kCount][2][2];  // rows lane / 4 and lane / 4 + 8, 64 bytes of columns
    WaitCopies<kStages - kCount>();
    __syncwarp();
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
      const uint8_t* from = ring + slot;
      slot = slot == (kStages - 1) * kStepBytes ? 0 : slot + kStepBytes;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int lane = threadIdx.x % kWarp, unit = (4 * c + lane % 4) ^ (lane / 4 & 1) << 2;
          raw[n][h][c] =
              *reinterpret_cast<const uint4*>(from + (lane / 4 + h * 8) * kStepWidth + unit * 16);
        }
      }
    }
    __syncwarp();  // all lanes have read what is now overwritten
#pragma unroll
    for (int n = 0; n < kCount; ++n) feed.Next();
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      uint32_t pairs[kCount][2][4];
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (K == Kind::kBf16) {
            const uint4 v = raw[n][h][piece];
            uint32_t(&to)[4] = pairs[n][h];
            to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
          } else {
            const uint4 v = raw[n][h][piece / 2];
            const uint32_t front = piece % 2 == 0 ? v.x : v.z, back = piece % 2 == 0 ? v.y : v.w;
            if constexpr (K == Kind::kFp8) Bf16FromE4m3(front, back, pairs[n][h]);
            if constexpr (K == Kind::kFp8Both) PairsFromE4m3(front, back, pairs[n][h]);
          }
        }
      }
      const uint4 v = x.v[step * kPieces + piece];
      const uint32_t b[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          if (step == 0 && piece == 0 && i == 0) {
#pragma unroll
            for (float& sum : acc[n]) sum = 0;
          }
          const uint32_t a[4] = {pairs[n][0][i], pairs[n][1][i], pairs[n][0][i + 1],
                                 pairs[n][1][i + 1]};
          const uint32_t two[2] = {b[i], b[i + 1]};
          if constexpr (K == Kind::kFp8Both) {
            MmaF16(acc[n], a, two);
          } else {
            MmaBf16(acc[n], a, two);
          }
        }
      }
    }
  }
}

// ---- the kernel ----

__device__ inline void StoreResult(const Part& part, int64_t token, int row, float v) {
  const int64_t at = token * part.out_stride + row;
  if (part.f32) {
    static_cast<float*>(part.out)[at] = v;
  } else {
    Store(static_cast<Bf16*>(part.out) + at, v);
  }
}

// The eight columns of a product with the tensor cores are those of x that the warp holds: `slots`
// tokens of each of its blocks one after the other.
template <Kind K, int kStages>
__device__ __forceinline__ void MultiplyPart(const Part& part, const Work& p, uint8_t* shared) {
  // ---- shared memory ----
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  uint8_t* ring = shared + warp * kStages * kStepBytes;
  auto* sums = reinterpret_cast<float*>(shared + FeedBytes(kStages));
  uint8_t* scales = shared + FeedBytes(kStages) + 2 * kSumBytes;

  // ---- load: weights, then what earlier launches have written ----
  const int column_warp = warp & (p.column_warps - 1), row_warp = warp >> p.column_warps_log;
  const int index = static_cast<int>(blockIdx.x) - part.first_block;
  const int first_tile = index * part.tiles + min(index, part.more);
  const int end_tile = first_tile + part.tiles + (index < part.more ? 1 : 0);
  Feed<K, kStages> feed(part, p, first_tile + row_warp, end_tile - first_tile - row_warp,
                        column_warp, ring);
#pragma unroll
  for (int i = 0; i < kStages; ++i) feed.Next();
  const int first_scale = (part.first_row + first_tile * 16) / kBlock;
  if constexpr (K != Kind::kBf16) {
    const int last = (part.first_row + min(end_tile * 16, part.rows) - 1) / kBlock;
    const int count = (last - first_scale + 1) * p.blocks;
    const uint8_t* from = part.scales + static_cast<int64_t>(first_scale) * p.blocks;
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += kThreads) scales[i] = from[i];
    __syncthreads();
  }
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
        const int row = part.first_row + min(tile * 16 + lane / 4 + 8 * h, part.rows - 1);
        factor[h] = FromE8m0(scales[(row / kBlock - first_scale) * p.blocks + block]);
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
template <int kStages>
__global__ void __launch_bounds__(kThreads + kWarp, 2) FewKernel(const __grid_constant__ Work p) {
  extern __shared__ __align__(16) uint8_t shared[];
  if (!p.late) LetNextStart();
  int i = 0;
  while (i + 1 < p.parts && static_cast<int>(blockIdx.x) >= p.part[i + 1].first_block) ++i;
  const Part& part = p.part[i];
  switch (part.kind) {
    case Kind::kBf16:
      return MultiplyPart<Kind::kBf16, kStages>(part, p, shared);
    case Kind::kFp8:
      return MultiplyPart<Kind::kFp8, kStages>(part, p, shared);
    case Kind::kFp8Both:
      return MultiplyPart<Kind::kFp8Both, kStages>(part, p, shared);
  }
}

// ---- host ----

int64_t RoundUp(int64_t v, int64_t to) { return CeilDiv(v, to) * to; }

// Tokens to a power of two, and units of a warp and tile.
int Slots(int64_t tokens) { return tokens <= 2 ? static_cast<int>(tokens) : tokens <= 4 ? 4 : 8; }
int64_t Rounds(int64_t cols) { return CeilDiv(CeilDiv(cols, kBlock), kWarps); }

// More weights of a block than shared memory takes at once: the next launch's may come early.
constexpr int64_t kManyBytes = 160 * 1024;

}  // namespace

bool IsFew(int64_t tokens, int64_t cols) {
  return tokens <= kFewMostTokens && Slots(tokens) * Rounds(cols) <= 8;
}

void MultiplyFew(Context& k, const char* op, const FewProduct& p) {
  if (p.tokens == 0 || p.parts.empty()) return;
  const auto count = static_cast<int64_t>(p.parts.size());
  const int64_t cols = p.parts.front().w.cols;
  SC_CHECK(count <= kFewMostParts && IsFew(p.tokens, cols));
  Work work = {};
  work.parts = static_cast<int32_t>(count);
  work.tokens = static_cast<int32_t>(p.tokens);
  work.cols = static_cast<int32_t>(cols);
  work.blocks = static_cast<int32_t>(CeilDiv(cols, kBlock));
  work.x_stride = p.x_stride;

  // ---- how a block's warps share a tile ----
  work.slots = Slots(p.tokens);
  while (1 << work.column_warps_log < std::min(kWarps, work.blocks)) ++work.column_warps_log;
  work.column_warps = 1 << work.column_warps_log;
  work.row_warps = kWarps / work.column_warps;
  while (1 << work.row_warps_log < work.row_warps) ++work.row_warps_log;
  work.rounds = static_cast<int32_t>(Rounds(cols));
  // Of a pair of tiles at least: 2 * 8 slots * 16 rows * 8 warps * 4 bytes.
  work.tiles_at_once = kSumBytes / (kWarps * 16 * work.slots * 4 * 2) / work.rounds * 2;

  // ---- blocks of the grid: a part's share of the bytes ----
  int64_t bytes = 0, blocks = 0, scale_bytes = 0;
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
    const int64_t share = Multiprocessors(k) * from.rows * from.w.row_bytes() / bytes;
    const int64_t mine = std::max<int64_t>(1, std::min(tiles, share));
    to.first_block = static_cast<int32_t>(blocks);
    to.tiles = static_cast<int32_t>(tiles / mine);
    to.more = static_cast<int32_t>(tiles % mine);
    blocks += mine;
    // Decoding without scales of x takes longer: such a launch is late to need the memory.
    if (to.kind == Kind::kFp8) work.late = true;
    if (to.kind != Kind::kBf16) {
      const int64_t rows_of_blocks = (to.tiles + 1) * 16 / kBlock + 2;
      scale_bytes = std::max(scale_bytes, RoundUp(rows_of_blocks * work.blocks, 16));
    }
  }
  work.late = work.late || bytes < kManyBytes * Multiprocessors(k);

  // The larger kernel of which two have room on a multiprocessor of sm_90, or one of 99 KB.
  const int64_t rest = 2 * kSumBytes + scale_bytes;
  const dim3 grid(static_cast<uint32_t>(blocks));
  if (FeedBytes(6) + rest <= SharedLimit(k)) {
    LaunchOverlapped(k, op, FewKernel<6>, grid, kThreads, FeedBytes(6) + rest, work);
  } else {
    LaunchOverlapped(k, op, FewKernel<4>, grid, kThreads, FeedBytes(4) + rest, work);
  }
}

}  // namespace seacliff::cuda
