// Pieces of the kernels of matmul_few.cu: what they are told, scales, and, of FewKernel alone, the
// lanes' activations, the way of the weights through shared memory, and the product of some units,
// blocks of 128 columns of 16 rows.
#pragma once

#include "kernels/common/e4m3_sm89.cuh"
#include "kernels/common/matmul_few.cuh"

namespace seacliff::cuda::few {

inline constexpr int kBlock = 128;                  // columns
inline constexpr int kStepWidth = 128;              // bytes of a row
inline constexpr int kStepBytes = 16 * kStepWidth;  // what a warp copies at a time
inline constexpr int kThreads = 256, kWarps = kThreads / kWarp;

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
  const uint4* codes;        // x as StripKernel reads it if kFp8Both: see QuantiseKernel
  const float* code_scales;  // [block of columns][token]
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
  int32_t tiles_at_once;                   // of a warp, that FewKernel adds up at a time
  int32_t strip;                           // sets of a warp that meet the same block of x
  int32_t scales_at;                       // in shared memory
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

// Copies a warp's weights to shared memory in the order in which FewKernel multiplies them: its
// tiles, two at a time; of these its blocks of columns; of these the steps of 128 bytes (two if
// kBf16); and for each the one or two tiles.
template <Kind K, int kStages>
class Feed {
 public:
  // `tiles` there are from the warp's first one, `tile`, on.
  __device__ Feed(const Part& part, const Work& p, int tile, int tiles, int column_warp,
                  uint8_t* ring)
      : row_bytes_(K == Kind::kBf16 ? 2 * p.cols : p.cols) {
    const int lane = threadIdx.x % kWarp, unit = lane % 8, row = tile * 16 + lane / 8;
    begin_ = column_warp * kBlockBytes;
    from_ = part.w + int64_t{row} * row_bytes_ + begin_ + unit * 16;
    to_ = ring + lane / 8 * kStepWidth + (unit ^ (lane / 8 & 1) << 2) * 16;
    block_step_ = p.column_warps * kBlockBytes;
    at_ = begin_;
    width_ = row_bytes_ - unit * 16;
    rows_ = part.rows - row;
    tile_rows_ = 16 * p.row_warps;
    tiles_ = begin_ < row_bytes_ ? (tiles + p.row_warps - 1) >> p.row_warps_log : 0;
  }

  // One step more, if there is one, to the place of the oldest. What is not there, rows or columns,
  // is zero.
  __device__ __forceinline__ void Next() {
    if (tile_ < tiles_) {
      const int left = at_ < width_ ? rows_ - (tile_ + second_) * tile_rows_ : 0;
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
    const int64_t tile_bytes = int64_t{tile_rows_} * row_bytes_;  // to the warp's next tile
    if (second_ == 0 && tile_ + 1 < tiles_) {
      second_ = 1;
      from_ += tile_bytes;
      return;
    }
    if (second_ != 0) from_ -= tile_bytes;
    second_ = 0;
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
    tile_ += 2;
  }

  const uint8_t* from_;  // the lane's first row of what comes next
  uint8_t* to_;
  int row_bytes_, begin_, width_, tile_rows_, block_step_;
  int rows_;   // that are left from the lane's first row on
  int tiles_;  // of the warp
  int tile_ = 0, at_, slot_ = 0;
  int second_ = 0;  // the second of two tiles is next
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
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const uint4 v = x.v[step * kPieces + piece];
        const uint32_t two[2] = {i == 0 ? v.x : v.z, i == 0 ? v.y : v.w};
#pragma unroll
        for (int n = 0; n < kCount; ++n) {
          if (step == 0 && piece == 0 && i == 0) {
#pragma unroll
            for (float& sum : acc[n]) sum = 0;
          }
          const uint32_t a[4] = {pairs[n][0][i], pairs[n][1][i], pairs[n][0][i + 1],
                                 pairs[n][1][i + 1]};
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

// The part whose tiles the block has.
__device__ __forceinline__ const Part& PartOfBlock(const Work& p) {
  int i = 0;
  while (i + 1 < p.parts && static_cast<int>(blockIdx.x) >= p.part[i + 1].first_block) ++i;
  return p.part[i];
}

// The scales of the rows of blocks that a block of the grid meets, on their way to shared memory.
// They are asked for ahead of the weights, behind which they would be late.
template <Kind K>
class ScaleCopy {
 public:
  __device__ ScaleCopy(const Part& part, const Work& p, int first_tile, int end_tile) {
    if constexpr (K == Kind::kBf16) return;
    first_ = (part.first_row + first_tile * 16) / kBlock;
    const int last = (part.first_row + min(end_tile * 16, part.rows) - 1) / kBlock;
    count_ = (last - first_ + 1) * p.blocks;
    if (static_cast<int>(threadIdx.x) < count_) code_ = From(part, p)[threadIdx.x];
  }

  // To `scales`, as `Value` gives them; all threads of the block.
  template <typename T, typename Value>
  __device__ void Finish(const Part& part, const Work& p, T* scales, Value value) const {
    if constexpr (K == Kind::kBf16) return;
    if (static_cast<int>(threadIdx.x) < count_) scales[threadIdx.x] = value(code_);
#pragma unroll 1
    for (int i = threadIdx.x + kThreads; i < count_; i += kThreads) {
      scales[i] = value(From(part, p)[i]);
    }
    __syncthreads();
  }
  // The row of blocks that they begin with.
  __device__ int first() const { return first_; }

 private:
  __device__ const uint8_t* From(const Part& part, const Work& p) const {
    return part.scales + static_cast<int64_t>(first_) * p.blocks;
  }

  int first_ = 0, count_ = 0;
  uint8_t code_ = 0;
};

// What a block's sum is multiplied by.
__device__ __forceinline__ float RowFactor(const uint8_t* scales, int first, const Part& part,
                                           const Work& p, int row, int block) {
  const int at = part.first_row + min(row, part.rows - 1);
  return FromE8m0(scales[(at / kBlock - first) * p.blocks + block]);
}

__device__ inline void StoreResult(const Part& part, int64_t token, int row, float v) {
  const int64_t at = token * part.out_stride + row;
  if (part.f32) {
    static_cast<float*>(part.out)[at] = v;
  } else {
    Store(static_cast<Bf16*>(part.out) + at, v);
  }
}

}  // namespace seacliff::cuda::few
