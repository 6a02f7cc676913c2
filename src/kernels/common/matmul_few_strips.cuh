// The kernel of matmul_few.cu for more tokens than a warp can hold x of. A block walks its tiles in
// strips, and for each strip the columns from the first to the last, so that a warp needs x of one
// block of columns at a time. A warp multiplies a set of tiles with it; what the tensor cores gave
// goes to shared memory, where all threads add up the warps' sums in ascending order.
//
// x that goes through e4m3 is so before: QuantiseKernel writes it in the order in which lanes read
// it, so that a block reads half as much as of bf16 and converts it like weights.
#pragma once

#include "kernels/common/matmul_few_units.cuh"

namespace seacliff::cuda::few {

// Shared memory of StripKernel, and what follows from its sizes. A set is kTiles tiles for each of
// the warps that deal them out.
template <int kOctets, int kTiles, int kStages>
struct StripShape {
  static constexpr int kSetBytes = kTiles * kStepBytes;  // a stage of a warp
  static constexpr int kUnitSums = kOctets * 128;        // of a tile and block of columns
  static constexpr int kFeedBytes = kWarps * kStages * kSetBytes;
  static constexpr int kBufferSums = kTiles * kWarps * kUnitSums;
  static constexpr int kFixedBytes = kFeedBytes + 2 * kBufferSums * 4;
  // Sums that a thread adds up side by side, so that a set of one warp's tiles is enough for all.
  static constexpr int kWidth = (kTiles * kUnitSums + kThreads - 1) / kThreads;
};

// Copies a warp's weights to shared memory in the order in which it multiplies them: strips of its
// sets; of these its blocks of columns; of these the sets, kTiles tiles each; of these the steps of
// 128 bytes (two if kBf16).
template <Kind K, int kTiles, int kStages>
class StripFeed {
 public:
  // `tiles` there are from the warp's first one, `tile`, on; `strip` of its sets make a strip.
  __device__ StripFeed(const Part& part, const Work& p, int tile, int tiles, int column_warp,
                       uint8_t* ring)
      : row_bytes_(K == Kind::kBf16 ? 2 * p.cols : p.cols), strip_(p.strip * kTiles) {
    const int lane = threadIdx.x % kWarp, unit = lane % 8, row = tile * 16 + lane / 8;
    begin_ = column_warp * kBlockBytes;
    from_ = part.w + int64_t{row} * row_bytes_ + begin_ + unit * 16;
    to_ = ring + lane / 8 * kStepWidth + (unit ^ (lane / 8 & 1) << 2) * 16;
    block_step_ = p.column_warps * kBlockBytes;
    at_ = begin_;
    width_ = row_bytes_ - unit * 16;
    rows_ = part.rows - row;
    tile_rows_ = 16 * p.row_warps;
    tile_bytes_ = int64_t{tile_rows_} * row_bytes_;
    tiles_ = begin_ < row_bytes_ ? (tiles + p.row_warps - 1) >> p.row_warps_log : 0;
    strip_end_ = min(strip_, tiles_);
  }

  // One step more, if there is one, to the place of the oldest. What is not there, rows or columns,
  // is zero.
  __device__ __forceinline__ void Next() {
    if (tile_ < tiles_) {
      const uint8_t* from = from_;
      uint8_t* to = to_ + slot_;
      const bool whole = tile_ + kTiles <= tiles_ && at_ < width_ &&
                         rows_ - (tile_ + kTiles - 1) * tile_rows_ > 12;
      if (whole) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            CopyAsync16(to + (n * 16 + i * 4) * kStepWidth,
                        from + n * tile_bytes_ + 4 * i * int64_t{row_bytes_});
          }
        }
      } else {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const int left =
              at_ < width_ && tile_ + n < tiles_ ? rows_ - (tile_ + n) * tile_rows_ : 0;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            CopyAsync16(to + (n * 16 + i * 4) * kStepWidth,
                        from + n * tile_bytes_ + 4 * i * int64_t{row_bytes_}, 4 * i < left);
          }
        }
      }
      Advance();
    }
    slot_ = slot_ == (kStages - 1) * kSetBytes ? 0 : slot_ + kSetBytes;
    CommitCopies();
  }

 private:
  static constexpr int kSetBytes = kTiles * kStepBytes;
  static constexpr int kBlockBytes = K == Kind::kBf16 ? 2 * kBlock : kBlock;

  __device__ __forceinline__ void Advance() {
    if constexpr (K == Kind::kBf16) {
      at_ ^= kStepWidth;
      if ((at_ & kStepWidth) != 0) {
        from_ += kStepWidth;
        return;
      }
      from_ -= kStepWidth;
    }
    const int before = tile_;
    tile_ += kTiles;
    if (tile_ < strip_end_) {
      from_ += kTiles * tile_bytes_;
      return;
    }
    from_ -= (before - strip_begin_) * tile_bytes_;
    tile_ = strip_begin_;
    at_ += block_step_;
    from_ += block_step_;
    if (at_ < row_bytes_) return;
    from_ += strip_ * tile_bytes_ - (at_ - begin_);
    at_ = begin_;
    tile_ = strip_begin_ = strip_end_;
    strip_end_ = min(strip_end_ + strip_, tiles_);
  }

  const uint8_t* from_;  // the lane's first row of what comes next
  uint8_t* to_;
  int64_t tile_bytes_;  // to the warp's next tile
  int row_bytes_, begin_, width_, tile_rows_, block_step_, strip_;
  int rows_;   // that are left from the lane's first row on
  int tiles_;  // of the warp
  int tile_ = 0, strip_begin_ = 0, strip_end_;
  int at_, slot_ = 0;
};

// A lane's part of x of one block of columns, as bf16 or e4m3.
template <Kind K, int kOctets>
struct StripX {
  static constexpr int kParts = K == Kind::kFp8Both ? 2 : 4;
  uint4 v[kOctets][kParts];
  float2 scale[kOctets];  // of the lane's columns of results; of kFp8Both alone
};

// Where a lane loads it from.
template <Kind K, int kOctets>
class StripSource {
 public:
  __device__ StripSource(const Part& part, const Work& p) : cols_(p.cols) {
    const int lane = threadIdx.x % kWarp;
    if constexpr (K == Kind::kFp8Both) {
      codes_ = part.codes + lane;
      scales_ = part.code_scales + lane % 4 * 2;
    } else {
      // Tokens that are not there are one that is: nobody takes their results.
#pragma unroll
      for (int o = 0; o < kOctets; ++o) {
        rows_[o] = static_cast<int>(min(o * 8 + lane / 4, p.tokens - 1) * p.x_stride);
      }
      x_ = part.x + lane % 4 * (K == Kind::kBf16 ? 8 : 16);
    }
  }

  __device__ __forceinline__ void Load(int block, StripX<K, kOctets>& to) const {
#pragma unroll
    for (int i = 0; i < StripX<K, kOctets>::kParts; ++i) {
#pragma unroll
      for (int o = 0; o < kOctets; ++o) {
        if constexpr (K == Kind::kFp8Both) {
          to.v[o][i] = codes_[((block * kOctets + o) * 2 + i) * kWarp];
        } else {
          const int at = block * kBlock + (K == Kind::kBf16 ? i * 32 : i / 2 * 64 + i % 2 * 8);
          const int first = threadIdx.x % 4 * (K == Kind::kBf16 ? 8 : 16);
          to.v[o][i] = make_uint4(0, 0, 0, 0);
          if (at + first < cols_) to.v[o][i] = *reinterpret_cast<const uint4*>(x_ + rows_[o] + at);
        }
      }
    }
    if constexpr (K == Kind::kFp8Both) {
#pragma unroll
      for (int o = 0; o < kOctets; ++o) {
        to.scale[o] = *reinterpret_cast<const float2*>(scales_ + (block * kOctets + o) * 8);
      }
    }
  }

 private:
  const uint4* codes_;
  const float* scales_;
  const Bf16* x_;
  int rows_[kOctets];
  int cols_;
};

// acc = the products of the next set with x.
template <Kind K, int kOctets, int kTiles, int kStages>
__device__ __forceinline__ void MultiplySet(StripFeed<K, kTiles, kStages>& feed,
                                            const uint8_t* ring, int& slot,
                                            const StripX<K, kOctets>& x,
                                            float (&acc)[kTiles][kOctets][4]) {
  constexpr int kSteps = K == Kind::kBf16 ? 2 : 1, kPieces = 4 / kSteps;
  constexpr int kSetBytes = kTiles * kStepBytes;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint4 raw[kTiles][2][2];  // rows lane / 4 and lane / 4 + 8, 64 bytes of columns
    WaitCopies<kStages - 1>();
    __syncwarp();
    const int lane = threadIdx.x % kWarp;
    const uint8_t* from = ring + slot + lane / 4 * kStepWidth;
    slot = slot == (kStages - 1) * kSetBytes ? 0 : slot + kSetBytes;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int unit = (4 * c + lane % 4) ^ (lane / 4 & 1) << 2;
          raw[n][h][c] =
              *reinterpret_cast<const uint4*>(from + (n * 16 + h * 8) * kStepWidth + unit * 16);
        }
      }
    }
    __syncwarp();  // all lanes have read what is now overwritten
    feed.Next();
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int part = step * kPieces + piece;
      uint32_t a[kTiles][2][4], b[kOctets][4];
      const auto words = [&](const uint4& v) {
        return piece % 2 == 0 ? make_uint2(v.x, v.y) : make_uint2(v.z, v.w);
      };
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (K == Kind::kBf16) {
            const uint4 v = raw[n][h][piece];
            a[n][h][0] = v.x, a[n][h][1] = v.y, a[n][h][2] = v.z, a[n][h][3] = v.w;
          } else {
            const uint2 two = words(raw[n][h][piece / 2]);
            if constexpr (K == Kind::kFp8) Bf16FromE4m3(two.x, two.y, a[n][h]);
            if constexpr (K == Kind::kFp8Both) PairsFromE4m3(two.x, two.y, a[n][h]);
          }
        }
      }
#pragma unroll
      for (int o = 0; o < kOctets; ++o) {
        if constexpr (K == Kind::kFp8Both) {
          const uint2 two = words(x.v[o][piece / 2]);
          PairsFromE4m3(two.x, two.y, b[o]);
        } else {
          const uint4 v = x.v[o][part];
          b[o][0] = v.x, b[o][1] = v.y, b[o][2] = v.z, b[o][3] = v.w;
        }
      }
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
#pragma unroll
        for (int o = 0; o < kOctets; ++o) {
          const uint32_t two[2] = {b[o][i], b[o][i + 1]};
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if (part == 0 && i == 0) {
#pragma unroll
              for (float& sum : acc[n][o]) sum = 0;
            }
            const uint32_t four[4] = {a[n][0][i], a[n][1][i], a[n][0][i + 1], a[n][1][i + 1]};
            if constexpr (K == Kind::kFp8Both) {
              MmaF16(acc[n][o], four, two);
            } else {
              MmaBf16(acc[n][o], four, two);
            }
          }
        }
      }
    }
  }
}

template <int kCount>
__device__ __forceinline__ void LoadSums(float (&v)[kCount], const float* from) {
  if constexpr (kCount == 4) {
    const float4 f = *reinterpret_cast<const float4*>(from);
    v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
  } else if constexpr (kCount == 2) {
    const float2 f = *reinterpret_cast<const float2*>(from);
    v[0] = f.x, v[1] = f.y;
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = from[i];
  }
}

template <Kind K, int kOctets, int kTiles, int kStages>
__device__ __forceinline__ void MultiplyStrips(const Part& part, const Work& p, uint8_t* shared) {
  using Shape = StripShape<kOctets, kTiles, kStages>;
  constexpr int kUnitSums = Shape::kUnitSums, kWidth = Shape::kWidth;
  // ---- shared memory ----
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  uint8_t* ring = shared + warp * kStages * Shape::kSetBytes;
  auto* sums = reinterpret_cast<float*>(shared + Shape::kFeedBytes);
  float* totals = sums + 2 * Shape::kBufferSums;
  auto* scales = reinterpret_cast<float*>(shared + p.scales_at);

  // ---- load: weights, then what earlier launches have written ----
  const int column_warp = warp & (p.column_warps - 1), row_warp = warp >> p.column_warps_log;
  const int index = static_cast<int>(blockIdx.x) - part.first_block;
  const int first_tile = index * part.tiles + min(index, part.more);
  const int end_tile = first_tile + part.tiles + (index < part.more ? 1 : 0);
  const ScaleCopy<K> scale_copy(part, p, first_tile, end_tile);
  StripFeed<K, kTiles, kStages> feed(part, p, first_tile + row_warp,
                                     end_tile - first_tile - row_warp, column_warp, ring);
#pragma unroll
  for (int i = 0; i < kStages; ++i) feed.Next();
  scale_copy.Finish(part, p, scales, [](uint8_t code) { return FromE8m0(code); });
  WaitForEarlier();
  const StripSource<K, kOctets> source(part, p);
  StripX<K, kOctets> x, next_x;
  source.Load(min(column_warp, p.blocks - 1), x);
  // Loads of the next launch's weights would delay those of x.
  if (p.late && x.v[0][0].x != 0x7fffffffu) LetNextStart();

  int slot = 0;
  float* buffer = sums;
  const int set_tiles = kTiles << p.row_warps_log;
  for (int strip = first_tile; strip < end_tile; strip += p.strip * set_tiles) {
    const int strip_end = min(end_tile, strip + p.strip * set_tiles);
    for (int r = 0; r < p.rounds; ++r) {
      const int block = r * p.column_warps + column_warp;
      // The block of columns after this one.
      int next = r + 1 < p.rounds       ? block + p.column_warps
                 : strip_end < end_tile ? column_warp
                                        : p.blocks;
      if (next >= p.blocks || next == block) next = -1;
      // While this block of columns is multiplied, x of the next is on its way.
      if (next >= 0) source.Load(next, next_x);
      for (int tile = strip; tile < strip_end; tile += set_tiles) {
        // ---- compute ----
        if (block < p.blocks) {
          float acc[kTiles][kOctets][4];
          MultiplySet<K, kOctets, kTiles, kStages>(feed, ring, slot, x, acc);
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            float factor[2] = {1.0f, 1.0f};
            if constexpr (K != Kind::kBf16) {
#pragma unroll
              for (int h = 0; h < 2; ++h) {
                const int row = (tile + (n << p.row_warps_log) + row_warp) * 16 + lane / 4 + 8 * h;
                const int at = part.first_row + min(row, part.rows - 1);
                factor[h] = scales[((at >> 7) - scale_copy.first()) * p.blocks + block];
              }
            }
            float* to = buffer + (n * kWarps + warp) * kUnitSums + lane * 4;
#pragma unroll
            for (int o = 0; o < kOctets; ++o) {
              float v[4];
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                v[e] = acc[n][o][e];
                if constexpr (K == Kind::kFp8Both) {
                  v[e] = __fmul_rn(v[e], e % 2 == 0 ? x.scale[o].x : x.scale[o].y);
                }
                if constexpr (K != Kind::kBf16) v[e] = __fmul_rn(v[e], factor[e / 2]);
              }
              *reinterpret_cast<float4*>(to + o * 128) = make_float4(v[0], v[1], v[2], v[3]);
            }
          }
        }
        __syncthreads();

        // ---- add up, and store after the last columns ----
        const int ready = min(p.column_warps, p.blocks - (r << p.column_warps_log));
        for (unsigned n = threadIdx.x * kWidth; n < static_cast<unsigned>(set_tiles * kUnitSums);
             n += kThreads * kWidth) {
          const unsigned i = n / kUnitSums, at = n % kUnitSums;
          const float* from =
              buffer + at +
              ((i >> p.row_warps_log) * kWarps + ((i & (p.row_warps - 1)) << p.column_warps_log)) *
                  kUnitSums;
          float* total = totals + (tile - strip) * kUnitSums + n;
          float sum[kWidth];
#pragma unroll
          for (float& v : sum) v = 0;
          if (r > 0) LoadSums(sum, total);
          if (ready == kWarps) {
#pragma unroll
            for (int w = 0; w < kWarps; ++w) {
              float v[kWidth];
              LoadSums(v, from + w * kUnitSums);
#pragma unroll
              for (int j = 0; j < kWidth; ++j) sum[j] = __fadd_rn(sum[j], v[j]);
            }
          } else {
#pragma unroll 1
            for (int w = 0; w < ready; ++w) {
              float v[kWidth];
              LoadSums(v, from + w * kUnitSums);
#pragma unroll
              for (int j = 0; j < kWidth; ++j) sum[j] = __fadd_rn(sum[j], v[j]);
            }
          }
          if (r + 1 < p.rounds) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) total[j] = sum[j];
            continue;
          }
          if (tile + static_cast<int>(i) >= strip_end) continue;
            // Sums lie as the tensor cores gave them, each lane's four side by side.
#pragma unroll
          for (unsigned j = 0; j < kWidth; ++j) {
            const unsigned e = (at + j) % 4, of = at / 4 % kWarp;
            const int token = at / 128 * 8 + of % 4 * 2 + e % 2;
            const int row = (tile + i) * 16 + of / 4 + e / 2 * 8;
            if (token < p.tokens && row < part.rows) StoreResult(part, token, row, sum[j]);
          }
        }
        buffer = buffer == sums ? sums + Shape::kBufferSums : sums;
      }
      if (next >= 0) x = next_x;
    }
  }
}

// ---- x through e4m3 ----

// As the parts' `codes` and `code_scales` are read. A warp has a token's block of 128 columns, four
// neighbours a lane; grid: blocks of columns, octets of tokens, matrices of x.
__global__ void __launch_bounds__(kThreads)
    QuantiseKernel(const Bf16* x, int64_t x_stride, int64_t x_step, int tokens, int cols,
                   uint32_t* codes, float* scales) {
  LetNextStart();
  const int lane = threadIdx.x % kWarp, in_octet = threadIdx.x / kWarp;
  const int token = blockIdx.y * 8 + in_octet, column = blockIdx.x * kBlock + lane * 4;
  const int64_t octet = (int64_t{blockIdx.z} * gridDim.x + blockIdx.x) * gridDim.y + blockIdx.y;
  WaitForEarlier();
  uint2 two = make_uint2(0, 0);
  if (token < tokens && column < cols) {
    two = *reinterpret_cast<const uint2*>(x + blockIdx.z * x_step + token * x_stride + column);
  }
  uint32_t most = MostOf(two.x, two.y);
#pragma unroll
  for (int i = 16; i > 0; i /= 2) most = MostOf(most, __shfl_xor_sync(0xffffffffu, most, i));
  const uint8_t scale = ScaleCode(most);
  const uint32_t inverse = Bits(Twice(InverseE8m0(scale)));
  const auto code = [](float v) -> uint32_t { return v == v ? E4m3Code(v) : 0x7f; };
  const auto pair = [&](uint32_t of) {
    const uint32_t rounded = RoundPairE4m3(Times(of, inverse));
    return code(LowOf(rounded)) | code(HighOf(rounded)) << 8;
  };
  const int reader = lane / 16 * kWarp + in_octet * 4 + lane / 4 % 4;
  codes[(octet * 64 + reader) * 4 + lane % 4] = pair(two.x) | pair(two.y) << 16;
  if (lane == 0) scales[octet * 8 + in_octet] = FromE8m0(scale) * (kPairUnit * kPairUnit);
}

template <int kOctets, int kTiles, int kStages, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) StripKernel(const __grid_constant__ Work p) {
  extern __shared__ __align__(16) uint8_t shared[];
  if (!p.late) LetNextStart();
  const Part& part = PartOfBlock(p);
  switch (part.kind) {
    case Kind::kBf16:
      return MultiplyStrips<Kind::kBf16, kOctets, kTiles, kStages>(part, p, shared);
    case Kind::kFp8:
      return MultiplyStrips<Kind::kFp8, kOctets, kTiles, kStages>(part, p, shared);
    case Kind::kFp8Both:
      return MultiplyStrips<Kind::kFp8Both, kOctets, kTiles, kStages>(part, p, shared);
  }
}

}  // namespace seacliff::cuda::few
