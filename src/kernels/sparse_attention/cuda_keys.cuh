// The keys of the cuda row of sparse_attention: which a token has, where they lie, how they come
// into shared memory, and how a warp reads them there. cuda.cu has the rest.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/sparse_attention/op.h"

namespace seacliff::sparse_attention {

using namespace cuda;  // NOLINT: the frame of every CUDA row

inline constexpr int kTile = 32;    // keys
inline constexpr int kStages = 3;   // tiles of keys in shared memory
inline constexpr int kGroup = 64;   // values of a warp
inline constexpr int kScales = 8;   // bytes of an entry's scales
inline constexpr int kPiece = 128;  // keys of a piece, unless that makes more pieces than
inline constexpr int kMaxPieces = 16;
inline constexpr int kFew = 16;  // tokens that a sequence may bring to be shared out

// ---- types ----

// Entries of one storage.
struct Entries {
  const uint8_t* data;
  const int32_t* table;  // page numbers of a sequence
  int64_t table_stride, table_width;
  int64_t page_bytes, scales;  // where a page's scales begin
  int64_t pages;
  int32_t page_len;
};

struct Params {
  const Bf16* q;
  Bf16* out;
  const float* sink;
  const float* frequencies;
  const int32_t* positions;
  const int32_t* seq_of;
  const int32_t* seq_begin;
  const int32_t* picks;  // null: every block
  int64_t picks_stride;
  Entries window, compressed;
  float* parts;          // [slots, pieces, heads, dim], sums relative to the piece's largest score
  float2* parts_stat;    // [slots, pieces, heads]: largest score, sum of weights
  int64_t whole;         // tokens that may be long ones' (all or 0)
  int64_t first_slot;    // of this launch: tokens of sequences that bring few
  int32_t slots_of_seq;  // 0: slots are numbers of tokens
  int32_t heads, dim, blocks;  // `blocks` of heads
  int32_t window_len, ratio, topk;
  int32_t pieces;
  float scale;
};

// A token's keys, numbered: the window's, then the compressed ones or places among the picks.
struct Keys {
  int32_t token, seq, position;
  int32_t window, count;
};

struct Piece {
  int32_t length, count;
};

// Where a key lies; null: there is none.
struct Source {
  const uint8_t* values;
  const uint8_t* scales;
};

__device__ inline Keys KeysOf(const Params& p, int token) {
  Keys k;
  k.token = token;
  k.seq = p.seq_of[token];
  k.position = p.positions[token];
  k.window = min(p.window_len, k.position + 1);
  k.count = k.window;
  if (p.ratio != 0) k.count += p.picks != nullptr ? p.topk : (k.position + 1) / p.ratio;
  return k;
}

// A function of a token's own number of keys.
__device__ inline Piece PiecesOf(int32_t keys) {
  Piece piece = {kPiece, 0};
  if (keys > kPiece * kMaxPieces) {
    piece.length = (keys + kMaxPieces * kTile - 1) / (kMaxPieces * kTile) * kTile;
  }
  piece.count = (keys + piece.length - 1) / piece.length;
  return piece;
}

__device__ inline int TokensOf(const Params& p, int seq) {
  return p.seq_begin[seq + 1] - p.seq_begin[seq];
}

// The token of a slot; -1 if there is none, or if its sequence brings many.
__device__ inline int TokenOf(const Params& p, int64_t slot) {
  if (p.slots_of_seq == 0) {
    return TokensOf(p, p.seq_of[slot]) <= kFew ? static_cast<int>(slot) : -1;
  }
  const int seq = static_cast<int>(slot / p.slots_of_seq);
  const int place = static_cast<int>(slot % p.slots_of_seq);
  const int count = TokensOf(p, seq);
  return count <= kFew && place < count ? p.seq_begin[seq] + place : -1;
}

// ---- shared memory ----

template <int kTiles>
struct Shared {
  static constexpr int kHeads = 16 * kTiles;
  static constexpr int kWeightPitch = kTile + 8;  // bf16

  Source sources[kStages][kTile];
  float2 turns[32];      // cosine and sine of the rotated pairs
  float factor[kHeads];  // what a tile shrinks the sums before it by
  float top[kHeads], sum[kHeads];
  uint32_t valid[kStages + 1];  // keys of a tile that are there, of some tiles in turn
  Bf16 weights[kHeads * kWeightPitch];
};

// After Shared: keys, kStages times [kTile, pitch] bytes and [kTile, kScales]; then scores,
// [groups, kHeads, kTile] f32.
__host__ __device__ inline int Pitch(int groups) {  // an odd number of 16 bytes: free of conflicts
  return (groups + 1) * kGroup + 16;
}
__host__ __device__ inline int StageBytes(int groups) { return kTile * (Pitch(groups) + kScales); }
template <int kTiles>
constexpr int64_t SharedBytes(int groups) {
  return static_cast<int64_t>(sizeof(Shared<kTiles>)) + kStages * StageBytes(groups) +
         int64_t{4} * groups * Shared<kTiles>::kHeads * kTile;
}

// ---- load ----

// A key on its way to its Source: two loads, one after the other, that other work may stand
// between.
struct Search {
  int32_t block = -1;  // position in the window, or compressed block
  int32_t page = -1;
  bool in_window = false;

  __device__ inline void Name(const Params& p, const Keys& k, int32_t number, int32_t end) {
    block = -1;
    in_window = number < k.window;
    if (number >= end) return;
    if (in_window) {
      block = k.position - k.window + 1 + number;
    } else {
      block = number - k.window;
      if (p.picks != nullptr) block = p.picks[k.token * p.picks_stride + block];
    }
  }
  __device__ inline void Look(const Params& p, const Keys& k) {
    const Entries& e = in_window ? p.window : p.compressed;
    page = -1;
    if (block < 0 || block / e.page_len >= e.table_width) return;
    page = e.table[k.seq * e.table_stride + block / e.page_len];
  }
  // Tells whether there is such a key.
  __device__ inline bool Find(const Params& p, Source* source) const {
    const Entries& e = in_window ? p.window : p.compressed;
    const bool found = page >= 0 && page < e.pages;
    const uint8_t* at = e.data + page * e.page_bytes;
    const int32_t slot = block % e.page_len;
    source->values = found ? at + int64_t{slot} * (p.dim + kGroup) : nullptr;
    source->scales = at + e.scales + int64_t{slot} * kScales;
    return found;
  }
};

// Eight threads a key; zeros where there is none. Only where a page is one entry do rows begin at
// multiples of 8 instead of 16.
__device__ inline void FetchTile(const Params& p, const Source* sources, uint8_t* stage,
                                 int groups) {
  const int part = threadIdx.x % 8, pitch = Pitch(groups), row_bytes = (groups + 1) * kGroup;
#pragma unroll 1
  for (int key = threadIdx.x / 8; key < kTile; key += groups * kWarp / 8) {
    const Source source = sources[key];
    const bool valid = source.values != nullptr;
    const uint8_t* from = valid ? source.values : p.window.data;
    uint8_t* to = stage + key * pitch;
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      for (int i = 16 * part; i < row_bytes; i += 128) CopyAsync16(to + i, from + i, valid);
    } else {
      for (int i = 8 * part; i < row_bytes; i += 64) CopyAsync8(to + i, from + i, valid);
    }
    if (part == 0) {
      CopyAsync8(stage + kTile * pitch + key * kScales, valid ? source.scales : p.window.data,
                 valid);
    }
  }
}

// Two e4m3 of a word as bf16, 2^-120 of their values: bf16 has the same order of bits with a wider
// exponent, so a byte's halves go to two bytes, subnormal values included. Times 2^120 is exact.
struct Spread {
  uint32_t low, high;
  __device__ inline explicit Spread(uint32_t word)
      : low((word << 4) & 0xf0f0f0f0u), high(((word >> 4) & 0x07070707u) | (word & 0x80808080u)) {}
  template <int kFirst, int kSecond>
  __device__ inline uint32_t Take() const {
    constexpr uint32_t kOrder = kFirst | (4 + kFirst) << 4 | kSecond << 8 | (4 + kSecond) << 12;
    return Times(__byte_perm(low, high, kOrder), 0x7b807b80u);
  }
};

// What each warp does with tiles of keys; `kRope`: bf16 values as they are, the last warp's.
//
// Of e4m3, a matrix of ldmatrix has rows of 16 values. Without transposition a lane gets the four
// neighbouring values 4t .. 4t + 3 of a row, which are taken for numbers 2t, 2t + 1, 2t + 8, 2t + 9
// of a product's 16 terms: the query's values are put in the same order. Transposed, it gets a
// block of two keys and two neighbouring values: two columns of factors.
template <bool kRope>
struct Lane {
  const uint8_t* keys;  // of the stage, this warp's values
  int pitch, lane;

  // Factors b of the 4 steps of 8 keys' scores.
  __device__ __forceinline__ void ForScores(int first_key, uint32_t (&b)[4][2]) const {
    const uint8_t* row = keys + (first_key + lane % 8) * pitch + lane / 8 * 16;
    uint32_t r[4];
    LoadMatrix4(r, row);
    if constexpr (kRope) {
      b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
      LoadMatrix4(r, row + 64);
      b[2][0] = r[0], b[2][1] = r[1], b[3][0] = r[2], b[3][1] = r[3];
    } else {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const Spread spread(r[step]);
        b[step][0] = spread.Take<0, 1>();
        b[step][1] = spread.Take<2, 3>();
      }
    }
  }

  // Factors b of 16 keys and the columns 8 (4 half) .. of the output, as StoreHead has them.
  __device__ __forceinline__ void ForValues(int first_key, int half, uint32_t (&b)[4][2]) const {
    const uint8_t* row = keys + (first_key + lane % 16) * pitch + lane / 16 * 16;
    uint32_t r[4];
    if constexpr (kRope) {
#pragma unroll
      for (int quarter = 0; quarter < 2; ++quarter) {
        LoadMatrix4Transposed(r, row + 64 * half + 32 * quarter);
        b[2 * quarter][0] = r[0], b[2 * quarter][1] = r[1];
        b[2 * quarter + 1][0] = r[2], b[2 * quarter + 1][1] = r[3];
      }
    } else {
      LoadMatrix4Transposed(r, row + 32 * half);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Spread spread(r[i]);
        b[i / 2 * 2][i % 2] = spread.Take<0, 2>();
        b[i / 2 * 2 + 1][i % 2] = spread.Take<1, 3>();
      }
    }
  }
};

}  // namespace seacliff::sparse_attention
