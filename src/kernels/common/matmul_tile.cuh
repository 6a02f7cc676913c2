// Products of weights in stored formats with bf16 activations, one tile at a time (device code).
//
// Weights are the left factor of mma.m16n8k16 and tokens the right one. A lane reads 16 bytes of a
// row of weights at a time and decodes them in registers; its k values are then neighbours, which
// is all the same to a sum as long as the activations are read in the same order.
//
// Sums are those of kernels/linear/op.h: blocks of 128 columns from zero on the tensor cores, each
// scaled by its power of two (exact), then added up in f32 in ascending order. Both tiles do that,
// whatever their size, so that a value's bits depend on its row and its token alone.
#pragma once

#include "kernels/common/cuda.cuh"

namespace seacliff::cuda {

// Formats of weights and the order in which they meet x: kFp8 takes x as it is, the two shuffled
// ones with each eight values in the order 0 4 1 5 2 6 3 7 (Prepare in matmul.cuh writes that).
enum class Form : uint8_t { kBf16, kFp8, kFp8Shuffled, kMxfp4 };

inline constexpr int kBlockColumns = 128;
inline constexpr int kPieces = 4;  // pieces of eight columns that a lane has of a block

// Columns that a lane gets from 16 bytes, and from four lanes' 64 bytes: a chunk.
__host__ __device__ constexpr int LaneColumns(Form f) {
  return f == Form::kBf16 ? 8 : f == Form::kMxfp4 ? 32 : 16;
}
__host__ __device__ constexpr int ChunkColumns(Form f) { return 4 * LaneColumns(f); }
__host__ __device__ constexpr int ChunksOfBlock(Form f) { return kBlockColumns / ChunkColumns(f); }
__host__ __device__ constexpr bool IsFp8(Form f) {
  return f == Form::kFp8 || f == Form::kFp8Shuffled;
}

// ---- decoding ----

// e4m3 in bytes 1 and 3: moved into the bits of a bf16 they are 2^-120 of their value, subnormal
// ones included.
__device__ inline uint32_t PairFromE4m3(uint32_t wide) {
  const uint32_t bits = ((wide >> 4) & 0x07f007f0u) | (wide & 0x80008000u);
  return Times(bits, 0x7b807b80u);  // 2^120
}

// What the bits of an e2m1 moved into a bf16 (2^-126 of its value) are multiplied by. Values come
// out as 2^-32 of what they are, so that scales from 2^-93 to 2^33 can be taken in.
__device__ inline uint32_t Mxfp4Factor(uint32_t code) {
  return min(code + 94u, 254u) * 0x00800080u;
}
inline constexpr float kMxfp4Unit = 0x1p32f;

// The factor of DecodePiece, from what LoadScales gave.
template <Form F>
__device__ inline uint32_t PieceFactor(uint32_t code) {
  return F == Form::kMxfp4 ? Mxfp4Factor(code) : code;
}

// Columns 8 piece .. 8 piece + 7 of a lane's 16 bytes as four pairs.
template <Form F>
__device__ inline void DecodePiece(const uint4& raw, int piece, uint32_t factor,
                                   uint32_t (&pairs)[4]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
  if constexpr (F == Form::kBf16) {
    // The factor is 0, which the compiler does not know: else it would copy the words into the
    // order that the product wants before each single product.
    for (int i = 0; i < 4; ++i) pairs[i] = words[i] | factor;
  } else if constexpr (F == Form::kFp8) {
    const uint32_t low = words[2 * piece], high = words[2 * piece + 1];
    pairs[0] = PairFromE4m3(__byte_perm(low, 0, 0x1404));
    pairs[1] = PairFromE4m3(__byte_perm(low, 0, 0x3424));
    pairs[2] = PairFromE4m3(__byte_perm(high, 0, 0x1404));
    pairs[3] = PairFromE4m3(__byte_perm(high, 0, 0x3424));
  } else if constexpr (F == Form::kFp8Shuffled) {
    const uint32_t low = words[2 * piece], high = words[2 * piece + 1];
    pairs[0] = PairFromE4m3(__byte_perm(low, high, 0x4404));
    pairs[1] = PairFromE4m3(__byte_perm(low, high, 0x5414));
    pairs[2] = PairFromE4m3(__byte_perm(low, high, 0x6424));
    pairs[3] = PairFromE4m3(__byte_perm(low, high, 0x7434));
  } else {
    constexpr uint32_t kMagnitude = 0x01c001c0u, kSign = 0x80008000u;
    const uint32_t w = words[piece];  // column i is nibble i
    pairs[0] = Times(((w << 6) & kMagnitude) | ((w << 12) & kSign), factor);
    pairs[1] = Times(((w << 2) & kMagnitude) | ((w << 8) & kSign), factor);
    pairs[2] = Times(((w >> 2) & kMagnitude) | ((w << 4) & kSign), factor);
    pairs[3] = Times(((w >> 6) & kMagnitude) | (w & kSign), factor);
  }
}

// What a block's sum is multiplied by.
template <Form F>
__device__ inline float BlockFactor(uint32_t code) {
  if constexpr (IsFp8(F)) return FromE8m0(static_cast<uint8_t>(code));
  return F == Form::kMxfp4 ? kMxfp4Unit : 1.0f;
}

// ---- operands ----

// kTiles times 16 rows of weights; rows from `end` on do not exist.
template <int kTiles>
struct WeightTile {
  const uint8_t* data[kTiles];
  const uint8_t* scales[kTiles];
  int32_t row[kTiles];
  int32_t end;
};

// The tokens of a tile: rows begin .. begin + count - 1 of x, or of a list of rows.
struct TokenRows {
  const Bf16* x;
  int64_t stride;
  const int32_t* list;
  int32_t begin, count;

  // -1 if there is no such token.
  __device__ int32_t Row(int i) const {
    return i >= count ? -1 : list != nullptr ? list[begin + i] : begin + i;
  }
};

// Read once: not kept in L1.
__device__ inline uint4 LoadStreamed(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// A lane's part of a weight tile: of each 16 rows the rows lane / 4 and lane / 4 + 8.
template <Form F, int kTiles>
class LaneWeights {
 public:
  __device__ LaneWeights(const WeightTile<kTiles>& tile, int cols, int lane)
      : quarter_(lane % 4), cols_(cols) {
    const int64_t row_bytes = static_cast<int64_t>(cols) * 16 / LaneColumns(F);
    scale_cols_ = IsFp8(F) ? (cols + 127) / 128 : F == Form::kMxfp4 ? cols / 32 : 0;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Rows beyond the end read the last one; nobody uses their sums.
        const int64_t row = min(tile.row[i] + lane / 4 + 8 * h, tile.end - 1);
        data_[i][h] = tile.data[i] + row * row_bytes;
        scales_[i][h] = tile.scales[i] + (IsFp8(F) ? row / 128 : row) * scale_cols_;
      }
    }
  }

  // Behind the last column some other values of the row, which meet zeros of x.
  __device__ void Load(int chunk, uint4 (&raw)[kTiles][2]) const {
    const int64_t at = Offset(chunk);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) raw[i][h] = LoadStreamed(data_[i][h] + at);
    }
  }
  // The same into shared memory, 512 bytes from one of the four to the next.
  __device__ void Copy(int chunk, uint8_t* to) const {
    const int64_t at = Offset(chunk);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) CopyAsync16(to + (2 * i + h) * 512, data_[i][h] + at);
    }
  }
  // Codes of the block scales; 0 for kBf16.
  __device__ void LoadScales(int block, uint32_t (&codes)[kTiles][2]) const {
    const int at = IsFp8(F) ? block : 4 * block + quarter_;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if constexpr (F == Form::kBf16) {
          codes[i][h] = static_cast<uint32_t>(cols_) >> 31;
        } else {
          codes[i][h] = at < scale_cols_ ? scales_[i][h][at] : 127;
        }
      }
    }
  }

 private:
  // Of this lane's bytes of a chunk in a row; 0 behind the last column.
  __device__ int64_t Offset(int chunk) const {
    const bool there = chunk * ChunkColumns(F) + quarter_ * LaneColumns(F) < cols_;
    return there ? static_cast<int64_t>(chunk) * 64 + quarter_ * 16 : 0;
  }

  const uint8_t* data_[kTiles][2];
  const uint8_t* scales_[kTiles][2];
  int quarter_, cols_, scale_cols_;
};

// Two steps of 16 columns: acc += weights (pairs of rows g and g + 8) times eight tokens.
__device__ inline void MultiplyPiece(float (&acc)[4], const uint32_t (&upper)[4],
                                     const uint32_t (&lower)[4], const uint4& x) {
  MmaBf16(acc, {upper[0], lower[0], upper[1], lower[1]}, {x.x, x.y});
  MmaBf16(acc, {upper[2], lower[2], upper[3], lower[3]}, {x.z, x.w});
}

// ---- few tokens: weights once from memory, the blocks of columns dealt out to warps ----

// Blocks whose sums are kept before they are added up.
__host__ __device__ constexpr int SmallSlots(int tokens) { return tokens == 8 ? 32 : 8; }
__host__ __device__ constexpr int64_t SmallShared(int tiles, int tokens) {
  return int64_t{SmallSlots(tokens)} * tiles * tokens * 16 * 4;
}

// What a warp needs of one block.
template <Form F, int kTiles, bool kWithX>
struct SmallStage {
  uint4 raw[ChunksOfBlock(F)][kTiles][2];
  uint32_t codes[kTiles][2];
  uint4 x[kWithX ? kPieces : 1];
};

// Calls sink(token, r, sums) once for each token of the tile and each r < 16: sums[i] belongs to
// row r of weight tile i. All threads of a block whose number of warps divides SmallSlots; `parts`
// is SmallShared bytes of shared memory.
template <Form F, int kTiles, int kTokens, typename Sink>
__device__ inline void MultiplySmall(const WeightTile<kTiles>& tile, const TokenRows& tokens,
                                     int cols, float* parts, Sink sink) {
  constexpr int kOctets = kTokens / 8, kSlots = SmallSlots(kTokens);
  constexpr int kLane = LaneColumns(F), kChunks = ChunksOfBlock(F);
  constexpr int kPiecesOfChunk = kPieces / kChunks;
  constexpr bool kHoldX = kTokens == 8;
  // Whether the next block is fetched before this one is multiplied: where registers allow it.
  constexpr bool kAhead = F == Form::kMxfp4 || (IsFp8(F) && kTiles == 1);
  constexpr int kSums = kTokens * 16 > 256 ? kTokens * 16 / 256 : 1;
  using Stage = SmallStage<F, kTiles, kHoldX>;

  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int blocks = (cols + kBlockColumns - 1) / kBlockColumns;
  const LaneWeights<F, kTiles> weights(tile, cols, lane);
  const int first = lane % 4 * kLane;
  const Bf16* rows[kOctets];
#pragma unroll
  for (int j = 0; j < kOctets; ++j) {
    const int32_t row = tokens.Row(8 * j + lane / 4);
    rows[j] = row < 0 ? nullptr : tokens.x + row * tokens.stride + first;
  }

  // ---- load ----
  const auto load_x = [&](int j, int block, int piece) {
    const int column =
        block * kBlockColumns + piece / kPiecesOfChunk * 4 * kLane + piece % kPiecesOfChunk * 8;
    uint4 v = make_uint4(0, 0, 0, 0);
    if (rows[j] != nullptr && column + first < cols) {
      v = *reinterpret_cast<const uint4*>(rows[j] + column);
    }
    return v;
  };
  const auto load = [&](int block, Stage& stage) {
    if (block >= blocks) return;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) weights.Load(block * kChunks + c, stage.raw[c]);
    weights.LoadScales(block, stage.codes);
    if constexpr (kHoldX) {
#pragma unroll
      for (int p = 0; p < kPieces; ++p) stage.x[p] = load_x(0, block, p);
    }
  };

  // ---- compute ----
  const auto multiply = [&](int block, const Stage& stage) {
    float acc[kTiles][kOctets][4] = {};
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      uint32_t pairs[kTiles][2][4];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          DecodePiece<F>(stage.raw[p / kPiecesOfChunk][i][h], p % kPiecesOfChunk,
                         PieceFactor<F>(stage.codes[i][h]), pairs[i][h]);
        }
      }
#pragma unroll
      for (int j = 0; j < kOctets; ++j) {
        const uint4 x = kHoldX ? stage.x[kHoldX ? p : 0] : load_x(j, block, p);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) MultiplyPiece(acc[i][j], pairs[i][0], pairs[i][1], x);
      }
    }
    float* to = parts + block % kSlots * (kTiles * kOctets * 128) + lane;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kOctets; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          to[(i * kOctets + j) * 128 + v * 32] =
              __fmul_rn(acc[i][j][v], BlockFactor<F>(stage.codes[i][v / 2]));
        }
      }
    }
  };

  float sums[kSums][kTiles] = {};
  Stage stage;
  if constexpr (kAhead) load(warp, stage);
  for (int begin = 0; begin < blocks; begin += kSlots) {
    const int end = min(begin + kSlots, blocks);
    for (int block = begin + warp; block < end; block += warps) {
      if constexpr (kAhead) {
        Stage next = stage;
        load(block + warps, next);
        multiply(block, stage);
        stage = next;
      } else {
        load(block, stage);
        multiply(block, stage);
      }
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kSums; ++n) {
      const int at = threadIdx.x + n * blockDim.x;
      if (at >= kTokens * 16) continue;
      for (int block = 0; block < end - begin; ++block) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          sums[n][i] = __fadd_rn(sums[n][i], parts[(block * kTiles + i) * kOctets * 128 + at]);
        }
      }
    }
    __syncthreads();
  }

  // ---- store ----
#pragma unroll
  for (int n = 0; n < kSums; ++n) {
    const int at = threadIdx.x + n * blockDim.x;
    if (at >= kTokens * 16) continue;
    const int from = at % 32, v = at / 32 % 4;  // the lane that had the value, and where
    const int token = at / 128 * 8 + from % 4 * 2 + v % 2;
    if (token < tokens.count) sink(token, from / 4 + v / 2 * 8, sums[n]);
  }
}

// ---- many tokens: x through shared memory, a warp has 32 rows and all tokens ----
//
// Weights go through shared memory too, which keeps more of them on their way than registers could:
// each lane copies what it reads itself, so that no barrier stands between.

inline constexpr int kLargeThreads = 256, kLargeStages = 3;
inline constexpr int kRingChunks = 3, kRingChunk = 2048;  // of a warp; bytes
inline constexpr int kLargeRow = kBlockColumns * 2;       // bytes of a token's block
inline constexpr int kStagedStride = 36;                  // floats; keeps banks apart

__host__ __device__ constexpr int64_t LargeShared(int tokens) {
  constexpr int64_t kWarps = kLargeThreads / kWarp;
  const int64_t copies =
      int64_t{kLargeStages} * tokens * kLargeRow + kWarps * kRingChunks * kRingChunk;
  const int64_t staged = kWarps * 32 * kStagedStride * 4;
  return copies > staged ? copies : staged;
}

// Where 16 bytes of a token's block stand, so that the eight lanes that read at once (two tokens)
// find them in different banks.
template <Form F>
__device__ inline int Swizzle(int unit, int token) {
  const int odd = token & 1;
  if constexpr (LaneColumns(F) == 8) return unit ^ odd << 2;
  if constexpr (LaneColumns(F) == 16) return unit ^ odd;
  return unit ^ (unit >> 3 & 1) ^ odd << 1;
}

// Calls sink(token, first, values) with values[i][0..7] of rows first .. first + 7 of the warp's
// weight tile i, for tokens of the tile; a lane may be called with any of them. kLargeThreads
// threads; `tile` is the warp's own, `shared` LargeShared bytes.
template <Form F, int kTokens, typename Sink>
__device__ inline void MultiplyLarge(const WeightTile<2>& tile, const TokenRows& tokens, int cols,
                                     uint8_t* shared, Sink sink) {
  constexpr int kOctets = kTokens / 8, kLane = LaneColumns(F), kChunks = ChunksOfBlock(F);
  constexpr int kPiecesOfChunk = kPieces / kChunks;
  constexpr int kUnits = kLargeRow / 16;  // of a token's block
  constexpr int kCopies = kTokens * kUnits / kLargeThreads;
  constexpr int kStageBytes = kTokens * kLargeRow;

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int blocks = (cols + kBlockColumns - 1) / kBlockColumns;
  const bool idle = tile.row[0] >= tile.end;  // no rows; still copies x

  // ---- load ----
  const int unit = threadIdx.x % kUnits;
  int32_t rows[kCopies];
#pragma unroll
  for (int n = 0; n < kCopies; ++n) {
    rows[n] = tokens.Row(threadIdx.x / kUnits + n * (kLargeThreads / kUnits));
  }
  const auto load_x = [&](int block) {
    uint8_t* stage = shared + block % kLargeStages * kStageBytes;
    const int column = block * kBlockColumns + unit * 8;
#pragma unroll
    for (int n = 0; n < kCopies; ++n) {
      const int token = threadIdx.x / kUnits + n * (kLargeThreads / kUnits);
      const bool there = rows[n] >= 0 && column < cols;
      const Bf16* from = there ? tokens.x + rows[n] * tokens.stride + column : tokens.x;
      CopyAsync16(stage + token * kLargeRow + Swizzle<F>(unit, token) * 16, from, there);
    }
  };
  const LaneWeights<F, 2> weights(tile, cols, lane);
  uint8_t* const ring =
      shared + kLargeStages * kStageBytes + warp * kRingChunks * kRingChunk + lane * 16;
  const auto load_weights = [&](int chunk, int slot) {
    if (!idle) weights.Copy(chunk, ring + slot * kRingChunk);
  };
  // Each chunk of weights is a group of copies. x of the first blocks belongs to the first group;
  // of a later block, to the first one that is issued kLargeStages - 1 blocks before.
#pragma unroll
  for (int block = 0; block < kLargeStages - 1; ++block) {
    if (block < blocks) load_x(block);
  }
#pragma unroll
  for (int chunk = 0; chunk < kRingChunks - 1; ++chunk) {
    load_weights(chunk, chunk);
    CommitCopies();
  }
  static_assert(kRingChunks - 1 <= (kLargeStages - 1) * kChunks, "x is there with its weights");
  uint32_t next_codes[2][2] = {};
  if (!idle) weights.LoadScales(0, next_codes);

  // ---- compute ----
  float sums[2][kOctets][4] = {};
  const int x_unit = Swizzle<F>(lane % 4 * (kLane / 8), lane / 4);
  int slot = 0;  // of the chunk
  for (int block = 0; block < blocks; ++block) {
    WaitCopies<kRingChunks - 2>();
    __syncthreads();  // this block's x is there, and nobody reads the block before any more
    if (block + kLargeStages - 1 < blocks) load_x(block + kLargeStages - 1);
    const uint8_t* stage = shared + block % kLargeStages * kStageBytes + lane / 4 * kLargeRow;
    float acc[2][kOctets][4] = {};
    uint32_t codes[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[i / 2][i % 2] = next_codes[i / 2][i % 2];
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c > 0) WaitCopies<kRingChunks - 2>();
      uint4 raw[2][2];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        raw[i / 2][i % 2] = *reinterpret_cast<const uint4*>(ring + slot * kRingChunk + i * 512);
      }
      load_weights(block * kChunks + c + kRingChunks - 1, slot == 0 ? kRingChunks - 1 : slot - 1);
      CommitCopies();
      slot = slot == kRingChunks - 1 ? 0 : slot + 1;
      if (idle) continue;
      if (c == kChunks - 1) weights.LoadScales(block + 1, next_codes);
#pragma unroll
      for (int p = 0; p < kPiecesOfChunk; ++p) {
        uint32_t pairs[2][2][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          DecodePiece<F>(raw[i / 2][i % 2], p, PieceFactor<F>(codes[i / 2][i % 2]),
                         pairs[i / 2][i % 2]);
        }
        const int at = (x_unit ^ (c * (kLane / 2) + p)) * 16;
#pragma unroll
        for (int j = 0; j < kOctets; ++j) {
          const uint4 x = *reinterpret_cast<const uint4*>(stage + j * 8 * kLargeRow + at);
          MultiplyPiece(acc[0][j], pairs[0][0], pairs[0][1], x);
          MultiplyPiece(acc[1][j], pairs[1][0], pairs[1][1], x);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor[2] = {BlockFactor<F>(codes[i][0]), BlockFactor<F>(codes[i][1])};
#pragma unroll
      for (int j = 0; j < kOctets; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          sums[i][j][v] = __fmaf_rn(acc[i][j][v], factor[v / 2], sums[i][j][v]);
        }
      }
    }
  }

  // ---- store: 32 tokens at a time through the warp's own shared memory, so that rows follow one
  // another ----
  WaitCopies<0>();
  __syncthreads();
  if (idle) return;
  float* staged = reinterpret_cast<float*>(shared) + warp * 32 * kStagedStride;
#pragma unroll
  for (int begin = 0; begin < kTokens; begin += 32) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const int token = j * 8 + lane % 4 * 2 + v % 2, row = i * 16 + lane / 4 + v / 2 * 8;
          staged[token * kStagedStride + row] = sums[i][begin / 8 + j][v];
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const int token = step * 16 + lane / 2, row = lane % 2 * 8;
      float values[2][8];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto* from =
            reinterpret_cast<const float4*>(staged + token * kStagedStride + i / 2 * 16 + row) +
            i % 2;
        *reinterpret_cast<float4*>(&values[i / 2][i % 2 * 4]) = *from;
      }
      if (begin + token < tokens.count) sink(begin + token, row, values);
    }
    __syncwarp();
  }
}

// ---- results ----

// Rows of results, bf16 or f32.
struct ResultRows {
  void* data;
  int64_t stride;
  bool f32;
  bool wide;  // eight neighbours from a multiple of eight on may be stored at once

  __device__ void Store(int64_t token, int column, float v) const {
    const int64_t at = token * stride + column;
    if (f32) {
      static_cast<float*>(data)[at] = v;
    } else {
      cuda::Store(static_cast<Bf16*>(data) + at, v);
    }
  }
  // Those of eight values that stand before `end`.
  __device__ void Store8(int64_t token, int column, int end, const float (&v)[8]) const {
    if (!wide || column + 8 > end) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (column + i < end) Store(token, column + i, v[i]);
      }
      return;
    }
    const int64_t at = token * stride + column;
    if (f32) {
      auto* to = reinterpret_cast<float4*>(static_cast<float*>(data) + at);
      to[0] = make_float4(v[0], v[1], v[2], v[3]);
      to[1] = make_float4(v[4], v[5], v[6], v[7]);
      return;
    }
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words[i] = Bf16Pair(v[2 * i], v[2 * i + 1]);
    }
    *reinterpret_cast<uint4*>(static_cast<Bf16*>(data) + at) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
};

// Tests of addresses that decide about vector loads and stores; host values only.
inline bool Aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace seacliff::cuda
