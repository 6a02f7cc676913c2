// What the kernels of sample share: rows and jobs as the device sees them, logits as numbers that
// sort, weights as integers, and sums over a block.
//
// Weights are summed as integers, multiples of 2^-45 at 129,280 ids (2^-62 of the most that as many
// weights can add up to): any order gives the same sum, so blocks add to one histogram as they
// come, and equal logits weigh the same wherever they stand.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/sample/steps.h"

namespace seacliff::sample {

using Sum = unsigned long long;  // atomics do not take uint64_t

// ---- types ----

inline constexpr int kThreads = 512;
inline constexpr int kWarps = kThreads / cuda::kWarp;
inline constexpr int kEach = 8;                     // ids of a thread
inline constexpr int kSlice = cuda::kWarp * kEach;  // of a warp
inline constexpr int kChunk = kWarps * kSlice;      // of a block at a time

template <typename T>
struct List {
  const T* data;
  int32_t size;
};

struct Bias {
  int32_t id;
  float value;
};

// The largest logit and its lowest id in one number, of which the largest wins: a key, then the
// complement of the id. kUnusable if a logit is NaN or +inf; without finite logits not above
// kLeast.
inline constexpr Sum kUnusable = ~Sum{0};
inline constexpr Sum kLeast = Sum{0x007fffff} << 32 | 0xffffffff;  // of -inf

struct DeviceRow {
  const float* logits;  // [vocab]
  float* adjusted;      // [vocab] after step 2; null where nothing reads it
  int32_t vocab;
  bool adjusts;
  float repetition, presence, frequency;
  List<TokenCount> counts;  // of each list: an id once
  List<Bias> bias;          // but here also several times, one after the other
  List<int32_t> banned;
  const uint32_t* allowed;  // [MaskWords(vocab)]; null: all are
  Sum raw_best, best;       // of `logits`, and of them after step 2
};

// One of the best logits of a row, for its logprobs.
struct Listed {
  float logit;
  int32_t id;
};

// What is done with all weights of a row: a token is drawn, or they are summed up and the best are
// listed.
struct Job {
  const float* logits;  // [vocab]
  const Sum* best;      // of these
  int32_t vocab;
  bool draws;
  float scale;  // of exponents: log2(e) / temperature
  float min_p;
  float unit;    // of integer weights: the largest weight, as one
  int32_t keep;  // this many of the best logits stay; 0: all
  double top_p, u;
  Sum least;  // all smaller weights together are less than top_p leaves out
  const DeviceRow* row;
  const Job* draw;  // of logprobs: where the row's token is drawn; null: it is the best
  Listed* top;      // [top_size]
  int32_t top_size;

  // Between the kernels. Of logits with this key the first `cut_ties` stay, and all above it.
  uint32_t cut_key;
  Sum cut_ties;
  Sum surplus;      // weight of logits with that key that do not stay
  Sum rest;         // of those below `least`
  uint32_t prefix;  // digits of the next such key, so far
  Sum wanted;       // which rank or weight is looked for among logits with that prefix
  uint32_t ticket;  // blocks that are done

  // Results.
  int32_t id;   // drawn
  float logit;  // of the row's token, before step 2
  Sum sum;      // of all weights
  uint32_t listed;
};

// ---- numbers ----

// Unsigned numbers in the order of the logits. Zeros are equal, as they are to a comparison.
__device__ inline uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__host__ __device__ inline uint32_t BitsOfKey(uint32_t key) {
  return (key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key;
}
__device__ inline float LogitOfKey(uint32_t key) { return __uint_as_float(BitsOfKey(key)); }

// The best of a thread's logits, which come in ascending order of id.
struct Best {
  float logit = -kInfinity;
  int32_t id = 0;
  bool usable = true;
  __device__ void Take(float v, int32_t its_id) {
    usable = usable && v < kInfinity;  // false for NaN too
    if (v > logit) {
      logit = v;
      id = its_id;
    }
  }
  __device__ Sum Number() const {
    return usable ? Sum{KeyOf(logit)} << 32 | ~static_cast<uint32_t>(id) : kUnusable;
  }
};
__host__ __device__ inline bool Usable(Sum best) { return best != kUnusable && best > kLeast; }
__host__ __device__ inline uint32_t KeyOfBest(Sum best) {
  return static_cast<uint32_t>(best >> 32);
}
__host__ __device__ inline int32_t IdOfBest(Sum best) {
  return static_cast<int32_t>(~static_cast<uint32_t>(best));
}

// Step 4. A job's weights are the same in every kernel, bit for bit.
struct Weights {
  float largest, scale, unit;
  __device__ Weights(const Job& job, Sum best)
      : largest(LogitOfKey(KeyOfBest(best))), scale(job.scale), unit(job.unit) {}
  // 0 where the weight is below min_p.
  __device__ Sum Of(float logit, float min_p = 0) const {
    const float weight = exp2f((logit - largest) * scale);
    return weight < min_p ? 0 : __float2ull_rn(weight * unit);
  }
};

// ---- a block ----

// The sum over this thread and those before it; total: over all.
__device__ inline Sum Inclusive(Sum v, Sum& total) {
  __shared__ Sum sums[kWarps];
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
#pragma unroll
  for (int offset = 1; offset < cuda::kWarp; offset *= 2) {
    const Sum lower = __shfl_up_sync(0xffffffffu, v, offset);
    if (lane >= offset) v += lower;
  }
  __syncthreads();  // the sums before have been read
  if (lane == cuda::kWarp - 1) sums[warp] = v;
  __syncthreads();
  total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    if (i == warp) v += total;
    total += sums[i];
  }
  return v;
}

// The largest, for thread 0.
__device__ inline Sum BlockMax(Sum v) {
  __shared__ Sum largest[kWarps];
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    v = max(v, __shfl_xor_sync(0xffffffffu, v, offset));
  }
  __syncthreads();
  if (lane == 0) largest[warp] = v;
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) v = max(v, largest[i]);
  return v;
}

__device__ inline Sum WarpTotal(Sum v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

// Where number i of a thread's logits stands in a chunk. Warps have slices, one after the other.
__device__ inline int PlaceOf(int i) {
  const int thread = static_cast<int>(threadIdx.x);
  return thread / cuda::kWarp * kSlice + i * cuda::kWarp + thread % cuda::kWarp;
}
__device__ inline void Load(const float* logits, int32_t count, float (&own)[kEach]) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) own[i] = PlaceOf(i) < count ? __ldcg(logits + PlaceOf(i)) : 0.0f;
}

// Whether all other blocks of a job have written what they had to: the last one goes on with it.
// The blocks share the job's chunks.
__device__ inline bool LastBlock(Job& job) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto chunks = static_cast<uint32_t>(cuda::CeilDiv(job.vocab, kChunk));
    last = atomicAdd(&job.ticket, 1u) == min(chunks, gridDim.y) - 1;
    if (last) job.ticket = 0;  // for the next kernel
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// ---- scan ----

// Step 2 on a chunk of logits in shared memory.
__device__ inline void Adjust(const DeviceRow& row, int32_t first, int32_t count, float* logits) {
  const int thread = static_cast<int>(threadIdx.x);
  const List<TokenCount> counts = row.counts;
  const List<Bias> bias = row.bias;
  const List<int32_t> banned = row.banned;
  const auto here = [&](int32_t id) { return id >= first && id < first + count; };
  __syncthreads();
  for (int i = thread; i < counts.size; i += kThreads) {
    const TokenCount seen = counts.data[i];
    if (!here(seen.id)) continue;
    float& logit = logits[seen.id - first];
    logit = logit > 0 ? __fdiv_rn(logit, row.repetition) : __fmul_rn(logit, row.repetition);
    if (seen.count == 0) continue;
    const float often = __fmul_rn(row.frequency, static_cast<float>(seen.count));
    logit = __fsub_rn(logit, __fadd_rn(often, row.presence));
  }
  __syncthreads();
  for (int i = thread; i < bias.size; i += kThreads) {
    const int32_t id = bias.data[i].id;
    if (!here(id) || (i > 0 && bias.data[i - 1].id == id)) continue;
    for (int j = i; j < bias.size && bias.data[j].id == id; ++j) {
      logits[id - first] = __fadd_rn(logits[id - first], bias.data[j].value);
    }
  }
  __syncthreads();
  for (int i = thread; i < banned.size; i += kThreads) {
    const int32_t id = banned.data[i];
    if (here(id)) atomicExch(&logits[id - first], -kInfinity);  // maybe again
  }
  __syncthreads();
}

// Whether `id` may be chosen. The ids of a warp's loads are those of one word each.
__device__ inline bool Allowed(const uint32_t* allowed, int32_t id) {
  return allowed == nullptr || (__ldg(allowed + id / 32) >> id % 32 & 1) != 0;
}

// Block (row, chunks): step 2, and the best logit before and after it. Also clears the histograms.
__global__ void __launch_bounds__(kThreads, 3)
    Scan(DeviceRow* rows, Sum* histograms, int64_t bins) {
  __shared__ float adjusted[kChunk];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t block = int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  const int64_t step = int64_t{gridDim.x} * gridDim.y * kThreads;
#pragma unroll 1
  for (int64_t i = block * kThreads + thread; i < bins; i += step) histograms[i] = 0;

  DeviceRow& row = rows[blockIdx.x];
  const float* from = row.logits;
  float* to = row.adjusted;
  const int32_t vocab = row.vocab, stride = static_cast<int32_t>(gridDim.y) * kChunk;
  const bool adjusts = row.adjusts;
  const uint32_t* allowed = row.allowed;
  Best raw, own;
  for (int32_t first = static_cast<int32_t>(blockIdx.y) * kChunk; first < vocab; first += stride) {
    const int32_t count = min(kChunk, vocab - first);
    float logits[kEach];
    Load(from + first, count, logits);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int32_t id = first + PlaceOf(i);
      const bool there = PlaceOf(i) < count;
      if (there) raw.Take(logits[i], id);
      // Nothing that follows makes -inf anything else.
      const bool may = !there || Allowed(allowed, id);
      if (adjusts) adjusted[PlaceOf(i)] = may ? logits[i] : -kInfinity;
    }
    if (!adjusts) continue;
    Adjust(row, first, count, adjusted);
    for (int at = thread; at < count; at += kThreads) {
      own.Take(adjusted[at], first + at);
      if (to != nullptr) to[first + at] = adjusted[at];
    }
    __syncthreads();
  }
  const Sum raw_best = BlockMax(raw.Number()), best = adjusts ? BlockMax(own.Number()) : raw_best;
  if (thread != 0) return;
  atomicMax(&row.raw_best, raw_best);
  atomicMax(&row.best, best);
}

}  // namespace seacliff::sample
