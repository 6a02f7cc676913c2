// What both kernels of the cuda row of sparse_attention share: which keys a token has, where they
// lie, how stored values become bf16, and how a head's output ends. cuda_chunk.cuh is for tokens of
// long chunks, cuda_scores.cuh and cuda_values.cuh, one after the other, for the others.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/sparse_attention/op.h"

namespace seacliff::sparse_attention {

using namespace cuda;  // NOLINT: the frame of every CUDA row

inline constexpr int kGroup = 64;        // values of an entry that share a scale
inline constexpr int kScales = 8;        // bytes of an entry's scales
inline constexpr int kUnit = kCudaUnit;  // keys whose weights are relative to one number
inline constexpr int kFew = kCudaFew;
inline constexpr float kLog2e = 1.44269504f;

// Bytes of an entry's row of values in shared memory: an odd number of 16, so that eight rows meet
// in no bank.
__host__ __device__ inline int Pitch(int groups) { return (groups + 1) * kGroup + 16; }

// ---- types ----

// Entries of one storage; the lengths fit 31 bits.
struct Entries {
  const uint8_t* data;
  const int32_t* table;  // page numbers of a sequence
  int64_t table_stride;
  uint32_t table_width;
  int32_t page_bytes, scales, pages;  // where a page's scales begin
  int32_t shift;                      // a page holds 2^shift entries
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
  // Of tokens of sequences that bring few. A unit's weights: as factors b of MmaBf16, [slots,
  // units, 2 steps, tiles, lanes, 2]; its stats: [slots, units, tiles, 8], what power of two the
  // weights are relative to, and their sum. Tiles: of 8 heads.
  uint32_t* weights;
  float2* stats;
  int64_t first_slot;          // of this launch
  int32_t slots_of_seq;        // 0: slots are numbers of tokens
  bool all_few;                // every token is taken for such a one
  int32_t heads, dim, blocks;  // `blocks` of heads
  int32_t window_len, ratio, topk;
  int32_t units, tiles;   // the most of a token
  int32_t split, splits;  // units of a block of the first kernel, and how many times
  float scale;
};

// A token's keys, numbered: the window's, then the compressed ones or places among the picks.
struct Keys {
  const int32_t *window_row, *compressed_row;  // its sequence's page numbers
  const int32_t* picks;                        // null: every block
  int32_t token, seq, position;
  int32_t window, count;
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
  k.window_row = p.window.table + k.seq * p.window.table_stride;
  k.compressed_row = p.compressed.table + k.seq * p.compressed.table_stride;
  k.picks = p.picks == nullptr ? nullptr : p.picks + token * p.picks_stride;
  k.window = min(p.window_len, k.position + 1);
  k.count = k.window;
  if (p.ratio != 0) k.count += p.picks != nullptr ? p.topk : (k.position + 1) / p.ratio;
  return k;
}

__device__ inline int CeilUnits(int32_t keys) { return (keys + kUnit - 1) / kUnit; }

__device__ inline int TokensOf(const Params& p, int seq) {
  return p.seq_begin[seq + 1] - p.seq_begin[seq];
}

// The token of a slot; -1 if there is none, or if its sequence brings many.
__device__ inline int TokenOf(const Params& p, int64_t slot) {
  if (p.slots_of_seq == 0) {
    const bool few = p.all_few || TokensOf(p, p.seq_of[slot]) <= kFew;
    return few ? static_cast<int>(slot) : -1;
  }
  const int seq = static_cast<int>(slot / p.slots_of_seq);
  const int place = static_cast<int>(slot % p.slots_of_seq);
  const int count = TokensOf(p, seq);
  return count <= kFew && place < count ? p.seq_begin[seq] + place : -1;
}

// ---- load ----

// A key on its way to its Source: two loads, one after the other, that other work may stand
// between.
struct Search {
  int32_t block = -1;  // position in the window, or compressed block
  int32_t page = -1;
  bool in_window = false;

  __device__ __forceinline__ void Name(const Keys& k, int32_t number) {
    block = -1;
    in_window = number < k.window;
    if (number >= k.count) return;
    if (in_window) {
      block = k.position - k.window + 1 + number;
    } else {
      block = number - k.window;
      if (k.picks != nullptr) block = k.picks[block];
    }
  }
  __device__ __forceinline__ void Look(const Params& p, const Keys& k) {
    page = in_window ? PageIn(p.window, k.window_row) : PageIn(p.compressed, k.compressed_row);
  }
  // No values if there is no such key.
  __device__ __forceinline__ Source Find(const Params& p) const {
    return in_window ? FindIn(p, p.window) : FindIn(p, p.compressed);
  }

 private:
  __device__ __forceinline__ int32_t PageIn(const Entries& e, const int32_t* row) const {
    const auto place = static_cast<uint32_t>(block >> e.shift);  // of no block: beyond any width
    return place < e.table_width ? row[place] : -1;
  }
  __device__ __forceinline__ Source FindIn(const Params& p, const Entries& e) const {
    if (static_cast<uint32_t>(page) >= static_cast<uint32_t>(e.pages)) return {};
    const uint8_t* at = e.data + int64_t{page} * e.page_bytes;
    const int32_t slot = block & ((1 << e.shift) - 1);
    return {at + slot * (p.dim + kGroup), at + e.scales + slot * kScales};
  }
};

// ---- numbers ----

// Four e4m3 as bf16, first values 0 and 2, then 1 and 3. bf16 has the same order of bits with a
// wider exponent, so that a value moved there, subnormal or not, is 2^-120 of itself: times 2^120,
// or another pair of factors, is exact.
struct Decoded {
  uint32_t even, odd;
  __device__ __forceinline__ explicit Decoded(uint32_t word, uint32_t factors = 0x7b807b80u)
      : even(Times((word << 4 & 0x07f007f0u) | (word << 8 & 0x80008000u), factors)),
        odd(Times((word >> 4 & 0x07f007f0u) | (word & 0x80008000u), factors)) {}
};

// Two e8m0 as bf16.
__device__ inline uint32_t ScalePair(uint32_t low, uint32_t high) {
  return (low == 0 ? 0x40u : low << 7) | (high == 0 ? 0x40u : high << 7) << 16;
}

// Of every thread of the block. Warps of different groups meet here from different code.
__device__ inline void Meet() { asm volatile("bar.sync 0, %0;\n" ::"r"(blockDim.x) : "memory"); }

// The exact power of whole numbers; results below 2^-126 are 0.
__device__ inline float Exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// ---- the end of a head ----

// Cosine and sine of the pair of rotated values `lane`.
__device__ inline float2 TurnOf(const Params& p, int32_t position, int lane) {
  float2 turn;
  sincosf(__fmul_rn(static_cast<float>(position), p.frequencies[lane]), &turn.y, &turn.x);
  return turn;
}
// Rounded, turned back, rounded.
__device__ inline uint32_t TurnedBack(float a, float b, float2 turn) {
  a = RoundBf16(a), b = RoundBf16(b);
  return Bf16Pair(__fmul_rn(a, turn.x) + __fmul_rn(b, turn.y),
                  __fmul_rn(b, turn.x) - __fmul_rn(a, turn.y));
}

}  // namespace seacliff::sparse_attention
