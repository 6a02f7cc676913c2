// What a block of compress does (device code): a token, which pools the block that it finishes.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/compress/op.h"
#include "kernels/index_query/rows.cuh"

namespace seacliff::compress {

using namespace cuda;  // NOLINT: the frame of every CUDA row

inline constexpr int kMaxThreads = 1024;
inline constexpr int kBatch = 8;  // members read at a time

// ---- types ----

struct Params {
  const float *keys, *gates, *ape;
  int64_t key_stride, gate_stride, ape_stride;
  const Bf16* weight;
  const float* frequencies;
  float eps;
  int32_t ratio, dim, width;
  int32_t parts;  // that the members of a column are pooled in
  const int32_t *positions, *seq_of, *seq_begin, *slots, *pages;
  int64_t pages_stride;
  float* state;
  int64_t slot_stride, row_stride, gate_offset;
  std::byte* entries;
  int64_t page_bytes, page_count;
  int32_t page_len, row_bytes, scale_bytes;  // of an entry's values and of its scales
  uint32_t* tickets;
};

// More than one part only where there are many members.
inline int64_t PartsOf(int64_t dim, int64_t members) {
  int64_t parts = 1;
  while (2 * parts * dim <= kMaxThreads && members / (2 * parts) >= kBatch) parts *= 2;
  return parts;
}

inline bool IsIndex(const CompressArgs& a) { return a.entries.format == EntryFormat::kIndexFp4; }

// `tickets`: one for each sequence, of Device::counters().
inline Params ParamsOf(const CompressArgs& a, uint32_t* tickets) {
  const int64_t dim = a.entries.dim, width = a.ape.shape[1];
  const int64_t row_bytes = IsIndex(a) ? dim / 2 : dim + 64;
  return {a.keys.data,
          a.gates.data,
          a.ape.data,
          a.keys.stride[0],
          a.gates.stride[0],
          a.ape.stride[0],
          a.weight.data,
          a.frequencies.data,
          a.eps,
          static_cast<int32_t>(a.ratio),
          static_cast<int32_t>(dim),
          static_cast<int32_t>(width),
          static_cast<int32_t>(PartsOf(dim, width / dim * a.ratio)),
          a.batch.positions.data,
          a.batch.seq_of.data,
          a.batch.seq_begin.data,
          a.batch.slots.data,
          a.batch.compressed_pages.data,
          a.batch.compressed_pages.stride[0],
          a.state.data,
          a.state.stride[0],
          a.state.stride[1],
          a.state.stride[2],
          a.entries.data,
          a.entries.page_bytes(),
          a.entries.pages,
          static_cast<int32_t>(a.entries.page_len),
          static_cast<int32_t>(row_bytes),
          static_cast<int32_t>(EntryBytes(a.entries.format, dim) - row_bytes),
          tickets};
}

// The softmax over some members of a column, so far: sum and value are relative to e^top.
struct Pooled {
  float top, sum, value;
};

// Of a block: the parts of each column, the pooled row, and 32 floats.
__host__ __device__ constexpr int64_t SharedBytes(int64_t parts, int64_t dim) {
  return parts * dim * static_cast<int64_t>(sizeof(Pooled)) + (dim + kWarp) * 4;
}

// Where a position's row is kept for later blocks.
__device__ inline float* RowOf(const Params& a, int32_t position, int64_t slot) {
  return a.state + slot * a.slot_stride + StateRow(a.ratio, position) * a.row_stride;
}

// ---- load ----

// Members [low, high) of one column. first_position and first_token are the sequence's in the step;
// earlier members are in the kept rows, their gates with ape already.
__device__ inline Pooled Pool(const Params& a, int32_t low, int32_t high, int32_t begin, int column,
                              int32_t first_position, int64_t first_token, int64_t slot) {
  // A member of the block before gives its first half, one of the block itself its last.
  const int last = a.width - a.dim + column;
  Pooled pooled = {-INFINITY, 0, 0};
  for (int32_t from = low; from < high; from += kBatch) {
    // Addresses are chosen, not branches taken, so that all loads are on their way together.
    float keys[kBatch], gates[kBatch], apes[kBatch], top = pooled.top;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int32_t p = min(from + i, high - 1);
      const bool here = p >= first_position;
      const int c = p < begin ? column : last;
      const int64_t token = first_token + p - first_position;
      const float* row = RowOf(a, p, slot) + c;
      const int32_t place = p < begin ? p - begin + a.ratio : p - begin;  // p mod ratio
      keys[i] = *(here ? a.keys + token * a.key_stride + c : row);
      gates[i] = *(here ? a.gates + token * a.gate_stride + c : row + a.gate_offset);
      apes[i] = here ? a.ape[place * a.ape_stride + c] : 0;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      gates[i] = from + i < high ? gates[i] + apes[i] : -INFINITY;
    }
#pragma unroll
    for (const float gate : gates) top = fmaxf(top, gate);
    const float rescale = expf(pooled.top - top);  // 0 at first
    pooled = {top, pooled.sum * rescale, pooled.value * rescale};
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const float e = expf(gates[i] - top);
      pooled.sum += e;
      pooled.value += e * keys[i];
    }
  }
  return pooled;
}

// ---- store ----

// Two values of each thread; a warp has a group of 64. The last one has those that are rotated.
__device__ inline void StoreKv(const Params& a, const float* row, std::byte* page, int slot,
                               int64_t position, const float (&frequencies)[2]) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, groups = a.dim / 64 - 1;
  if (warp > groups) return;
  std::byte* values = page + static_cast<int64_t>(slot) * a.row_bytes;
  std::byte* scales = page + static_cast<int64_t>(a.page_len) * a.row_bytes +
                      static_cast<int64_t>(slot) * a.scale_bytes;
  float v[2] = {row[64 * warp + 2 * lane], row[64 * warp + 2 * lane + 1]};
  if (warp == groups) {
    float2 turns[1];
    Turns<2>(position, frequencies, turns);
    RotateValues<2>(turns, v);
    StoreValues<2>(reinterpret_cast<Bf16*>(values + 64 * groups) + 2 * lane, v);
    if (lane < a.scale_bytes - groups) scales[groups + lane] = std::byte{0};
    return;
  }
  const uint8_t code = E4m3ScaleCode(WarpMax(fmaxf(fabsf(v[0]), fabsf(v[1]))));
  const float inverse = InverseE8m0(code);
  uint32_t pair = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    pair |= static_cast<uint32_t>(E4m3Code(RoundE4m3(__fmul_rn(v[i], inverse)))) << (8 * i);
  }
  reinterpret_cast<uint16_t*>(values + 64 * warp)[lane] = static_cast<uint16_t>(pair);
  if (lane == 0) scales[warp] = static_cast<std::byte>(code);
}

// The first warp, four values a lane.
__device__ inline void StoreIndex(const Params& a, const float* row, std::byte* page, int slot,
                                  int64_t position, const float (&frequencies)[2]) {
  const int lane = threadIdx.x;
  if (lane >= kWarp) return;
  float v[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = row[4 * lane + i];
  const int rotated = 4 * lane - (128 - kRotated);
  if (rotated >= 0) {
    float2 turns[2];
    Turns<4>(position, frequencies, turns);
    RotateValues<4>(turns, v);
  }
#pragma unroll
  for (float& x : v) x = RoundBf16(x);
  HadamardWarp<4>(v);
#pragma unroll
  for (float& x : v) x = RoundBf16(x);
  const uint8_t code = E2m1WarpScale<4>(v);
  const float inverse = InverseE8m0(code);
  uint32_t four = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    four |= static_cast<uint32_t>(E2m1Code(__fmul_rn(v[i], inverse))) << (4 * i);
  }
  reinterpret_cast<uint16_t*>(page + static_cast<int64_t>(slot) * a.row_bytes)[lane] =
      static_cast<uint16_t>(four);
  if (lane % 8 == 0) {
    page[static_cast<int64_t>(a.page_len) * a.row_bytes +
         static_cast<int64_t>(slot) * a.scale_bytes + lane / 8] = static_cast<std::byte>(code);
  }
}

// ---- what a block does ----

// All threads of a block.
__device__ inline void KeepRow(const Params& a, int64_t token, int32_t position, int64_t slot) {
  float* row = RowOf(a, position, slot);
  const float* keys = a.keys + token * a.key_stride;
  const float* gates = a.gates + token * a.gate_stride;
  const float* ape = a.ape + position % a.ratio * a.ape_stride;
  for (int c = static_cast<int>(threadIdx.x); c < a.width; c += static_cast<int>(blockDim.x)) {
    row[c] = keys[c];
    row[a.gate_offset + c] = gates[c] + ape[c];
  }
}

// A token. Thread (part, column): a part of the members of a column, or some of them where a block
// has fewer threads. Parts add up in their order. kKeep: this launch keeps the rows too. `shared`
// is SharedBytes of shared memory; a block has at least `dim` threads.
template <bool kIndex, bool kKeep>
__device__ inline void Emit(const Params& a, int64_t token, std::byte* shared) {
  auto* parts = reinterpret_cast<Pooled*>(shared);
  auto* row = reinterpret_cast<float*>(parts + a.parts * a.dim);
  float* scratch = row + a.dim;

  // What no step writes.
  LetNextStart();
  const int threads = static_cast<int>(blockDim.x), at_once = threads / a.dim;
  const int column = static_cast<int>(threadIdx.x) % a.dim;
  const int first_part = static_cast<int>(threadIdx.x) / a.dim;
  const float weight = Load(a.weight + column);
  const int lane = threadIdx.x % kWarp;  // of the warp whose values are rotated
  const int pair = kIndex ? max(0, 2 * lane - (128 - kRotated) / 2) : lane;
  const float frequencies[2] = {a.frequencies[pair], a.frequencies[kIndex ? pair + 1 : pair]};
  WaitForEarlier();

  const int32_t position = a.positions[token];
  // The token's own row, early: it may be all that there is to do.
  float own_keys[kMaxOwn] = {}, own_gates[kMaxOwn] = {};
#pragma unroll
  for (int i = 0; kKeep && i < kMaxOwn; ++i) {
    const int c = static_cast<int>(threadIdx.x) + i * threads;
    if (c >= a.width) break;
    own_keys[i] = a.keys[token * a.key_stride + c];
    own_gates[i] =
        a.gates[token * a.gate_stride + c] + a.ape[position % a.ratio * a.ape_stride + c];
  }
  const bool ends = (position + 1) % a.ratio == 0;
  if (!kKeep && !ends) return;
  const int64_t seq = a.seq_of[token];
  const int64_t first_token = a.seq_begin[seq], slot_of_seq = a.slots[seq];
  const int32_t first_position = a.positions[first_token];
  const int32_t block = position / a.ratio, begin = block * a.ratio;
  const int32_t from = max(0, begin - (a.width / a.dim - 1) * a.ratio);
  const int64_t page = ends ? a.pages[seq * a.pages_stride + begin / kPageTokens] : -1;
  if (ends) {
    const int32_t members = (position + 1 - from + a.parts - 1) / a.parts;
    for (int part = first_part; first_part < at_once && part < a.parts; part += at_once) {
      const int32_t low = from + part * members;
      parts[part * a.dim + column] = Pool(a, low, min(low + members, position + 1), begin, column,
                                          first_position, first_token, slot_of_seq);
    }
  }
  if constexpr (kKeep) {
    const int64_t end_token = a.seq_begin[seq + 1];
    if (end_token - first_token == 1) {
      float* row_of_token = RowOf(a, position, slot_of_seq);  // not among those that were pooled
#pragma unroll
      for (int i = 0; i < kMaxOwn; ++i) {
        const int c = static_cast<int>(threadIdx.x) + i * threads;
        if (c >= a.width) break;
        row_of_token[c] = own_keys[i];
        row_of_token[a.gate_offset + c] = own_gates[i];
      }
    } else if (LastOf(a.tickets + seq, static_cast<uint32_t>(end_token - first_token))) {
      const int32_t count = static_cast<int32_t>(end_token - first_token);
      for (int32_t i = 0; i < count; ++i) {
        const int32_t p = first_position + i;
        if (!KeepsState(a.ratio, p, first_position + count - 1)) continue;
        KeepRow(a, first_token + i, p, slot_of_seq);
      }
    }
  }
  if (page < 0 || page >= a.page_count) return;
  __syncthreads();

  float v = 0;
  if (first_part == 0) {
    float top = -INFINITY, sum = 0, value = 0;
    for (int i = 0; i < a.parts; ++i) top = fmaxf(top, parts[i * a.dim + column].top);
    for (int i = 0; i < a.parts; ++i) {
      const Pooled& p = parts[i * a.dim + column];
      const float e = expf(p.top - top);  // 0 of a part without members
      sum += e * p.sum;
      value += e * p.value;
    }
    v = RoundBf16(value / sum);
  }
  const float mean = BlockSum(v * v, scratch) / static_cast<float>(a.dim);
  const float norm = 1.0f / sqrtf(mean + a.eps);
  if (first_part == 0) row[column] = RoundBf16(__fmul_rn(__fmul_rn(v, norm), weight));
  __syncthreads();

  std::byte* base = a.entries + page * a.page_bytes;
  const int slot = block % a.page_len;
  if constexpr (kIndex) {
    StoreIndex(a, row, base, slot, begin, frequencies);
  } else {
    StoreKv(a, row, base, slot, begin, frequencies);
  }
}

}  // namespace seacliff::compress
