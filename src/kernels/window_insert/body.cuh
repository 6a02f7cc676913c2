// What a warp of window_insert does with a token (device code): a lane has 16 neighbouring values,
// so that four lanes share a scale and the last four of a row hold what is rotated.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/window_insert/op.h"

namespace seacliff::window_insert {

using namespace cuda;  // NOLINT: the frame of every CUDA row

inline constexpr int kOwn = 16;             // values of a lane
inline constexpr int kSpan = kOwn * kWarp;  // values that a warp takes at once

// ---- types ----

struct Params {
  const Bf16* kv;
  const Bf16* weight;
  const float* frequencies;
  const int32_t* positions;
  const int32_t* seq_of;
  const int32_t* pages;
  int64_t pages_stride, max_pages;
  uint8_t* data;
  int64_t page_bytes, pages_held;
  int64_t tokens;
  int32_t dim, page_len, row, scale_row;  // bytes of a row of values, of scales
  bool wide_weight;                       // it may be read 16 bytes at a time
  float eps;
};

inline Params ParamsOf(const WindowInsertArgs& a) {
  const int64_t dim = a.kv.shape[1], row = dim - 64 + 128;
  return {static_cast<const Bf16*>(a.kv.data),
          a.weight.data,
          a.frequencies.data,
          a.batch.positions.data,
          a.batch.seq_of.data,
          a.batch.window_pages.data,
          a.batch.window_pages.stride[0],
          a.batch.window_pages.shape[1],
          reinterpret_cast<uint8_t*>(a.window.data),
          a.window.page_bytes(),
          a.window.pages,
          a.kv.shape[0],
          static_cast<int32_t>(dim),
          static_cast<int32_t>(a.window.page_len),
          static_cast<int32_t>(row),
          static_cast<int32_t>(EntryBytes(a.window.format, dim) - row),
          reinterpret_cast<uintptr_t>(a.weight.data) % 16 == 0,
          a.eps};
}

// ---- load ----

__device__ inline void Load16(const Bf16* from, bool wide, float (&v)[kOwn]) {
  if (!wide) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) v[i] = Load(from + i);
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint4 bits = reinterpret_cast<const uint4*>(from)[half];
    const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[half * 8 + 2 * i] = LowOf(pairs[i]);
      v[half * 8 + 2 * i + 1] = HighOf(pairs[i]);
    }
  }
}

// ---- store ----

// A group's four lanes all call it; the scale is theirs together.
__device__ inline void StoreE4m3(uint8_t* to, uint8_t* scale, const float (&v)[kOwn], int lane) {
  float top = 0;
#pragma unroll
  for (const float x : v) top = fmaxf(top, fabsf(x));
  const uint32_t group = 0xfu << (lane & ~3);
  top = fmaxf(top, __shfl_xor_sync(group, top, 1));
  top = fmaxf(top, __shfl_xor_sync(group, top, 2));
  const uint8_t code = E4m3ScaleCode(top);
  const float inverse = InverseE8m0(code);
  uint32_t words[kOwn / 4];
#pragma unroll
  for (int i = 0; i < kOwn / 4; ++i) {
    words[i] = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t bits = E4m3Code(RoundE4m3(__fmul_rn(v[4 * i + j], inverse)));
      words[i] |= bits << (8 * j);
    }
  }
  // Rows of values begin at multiples of 8 bytes only where a page is one entry.
  auto* out = reinterpret_cast<uint2*>(to);
  out[0] = make_uint2(words[0], words[1]);
  out[1] = make_uint2(words[2], words[3]);
  if (lane % 4 == 0) *scale = code;
}

__device__ inline void StoreBf16(uint8_t* to, const float (&v)[kOwn]) {
  auto* out = reinterpret_cast<uint2*>(to);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint32_t pairs[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      pairs[j] = Bf16Pair(v[4 * i + 2 * j], v[4 * i + 2 * j + 1]);
    }
    out[i] = make_uint2(pairs[0], pairs[1]);
  }
}

// A warp. kParts: most spans of a row.
template <int kParts>
__device__ inline void Insert(const Params& p, int64_t token) {
  const int lane = threadIdx.x % kWarp;

  // ---- load: first what no step writes ----
  LetNextStart();
  const float frequency = p.frequencies[lane];
  float weight[kParts][kOwn];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kSpan + lane * kOwn;
    if (at < p.dim) Load16(p.weight + at, p.wide_weight, weight[part]);
  }
  WaitForEarlier();
  if (token >= p.tokens) return;
  const int32_t position = p.positions[token];
  const int64_t pages_at = p.seq_of[token] * p.pages_stride;
  float v[kParts][kOwn];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kSpan + lane * kOwn;
    if (at < p.dim) Load16(p.kv + token * p.dim + at, true, v[part]);
  }
  const int64_t page_at = position / kPageTokens;
  const int32_t slot = static_cast<int32_t>(position % kPageTokens);
  const int64_t page = page_at < p.max_pages ? p.pages[pages_at + page_at] : -1;

  // A lane turns one pair's frequency into cosine and sine; the eight it may need come from others.
  float own_cos, own_sin;
  sincosf(__fmul_rn(static_cast<float>(position), frequency), &own_sin, &own_cos);
  if (page < 0 || page >= p.pages_held) return;  // a broken table must not write elsewhere

  float sum = 0;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kSpan + lane * kOwn;
    if (at >= p.dim) continue;
#pragma unroll
    for (const float x : v[part]) sum += x * x;
  }
  const float norm = 1.0f / sqrtf(WarpSum(sum) / static_cast<float>(p.dim) + p.eps);

  uint8_t* base = p.data + page * p.page_bytes;
  uint8_t* values = base + int64_t{slot} * p.row;
  uint8_t* scales = base + int64_t{p.page_len} * p.row + int64_t{slot} * p.scale_row;
  const int rope = p.dim - 64, groups = rope / 64;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kSpan + lane * kOwn;
    float turn_cos[kOwn / 2], turn_sin[kOwn / 2];
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      turn_cos[i] = __shfl_sync(0xffffffffu, own_cos, 8 * (lane % 4) + i);
      turn_sin[i] = __shfl_sync(0xffffffffu, own_sin, 8 * (lane % 4) + i);
    }
    if (at >= p.dim) continue;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      v[part][i] = RoundBf16(__fmul_rn(__fmul_rn(v[part][i], norm), weight[part][i]));
    }
    if (at < rope) {
      StoreE4m3(values + at, scales + at / 64, v[part], lane);
      continue;
    }
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      const float x = v[part][2 * i], y = v[part][2 * i + 1];
      const float c = turn_cos[i], s = turn_sin[i];
      v[part][2 * i] = __fmul_rn(x, c) - __fmul_rn(y, s);
      v[part][2 * i + 1] = __fmul_rn(x, s) + __fmul_rn(y, c);
    }
    StoreBf16(values + rope + 2 * (at - rope), v[part]);
  }
  // What pads the row of scales is zero.
  if (lane < p.scale_row - groups) scales[groups + lane] = 0;
}

}  // namespace seacliff::window_insert
