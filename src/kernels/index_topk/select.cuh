// The best of a row of scores, exactly: the last score that is picked, then the blocks above it,
// and of those equal to it the first, in ascending order. A block of threads takes a token.
//
// The last score is narrowed down: the topk-th best of each thread's best score bounds it from
// below, what is not below that bound is listed, and bins along the list's range leave a handful.
// In rows where that does not work out, most scores equal for instance, it is found bit by bit.
#pragma once

#include <algorithm>

#include "kernels/common/cuda.cuh"

namespace seacliff::index_topk {

using cuda::kWarp;

// ---- types ----

struct Selection {
  const float* scores;  // [tokens, score_stride], those of visible blocks are there
  int64_t score_stride;
  const int32_t* positions;
  int32_t ratio, topk, tokens;
  int32_t* picks;
  int64_t pick_stride;
};

inline constexpr int kSelectThreads = 1024;
inline constexpr int kSelectWarps = kSelectThreads / kWarp;
inline constexpr int kFew = 4, kMany = 16;  // scores that a thread holds, in short and in long rows
inline constexpr int kBins = kSelectThreads;
inline constexpr int kListed = 8192, kFinal = 256;

struct SelectShared {
  int32_t bins[kBins];  // 0 between uses
  int32_t totals[kSelectWarps];
  float lows[kSelectWarps], highs[kSelectWarps];
  int32_t bin, rank, count;  // what FindBin found
  int32_t listed, finals;
  float final_scores[kFinal];
  float limit;
  int32_t quota;
};
// After SelectShared: float list[kListed], later uint32_t above[words], equal[words].

// Where a score lies between two others; never descends as scores ascend.
struct Line {
  float low, scale;
  __device__ Line(float from, float to) : low(from), scale((kBins - 1) / (to - from)) {}
  __device__ int BinOf(float score) const {
    return static_cast<int>(fminf(fmaxf((score - low) * scale, 0.0f), kBins - 1.0f));
  }
  __device__ float Edge(int bin) const { return low + static_cast<float>(bin) / scale; }
};

// A thread's scores: blocks first + i * kSelectThreads + thread.
template <int kEach>
struct Held {
  static constexpr int kStretch = kEach * kSelectThreads;

  float v[kEach];
  int first = -1;

  __device__ void Load(const float* from, int visible, int begin) {
    if (first == begin) return;
    first = begin;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int j = begin + i * kSelectThreads + static_cast<int>(threadIdx.x);
      v[i] = j < visible ? __ldcg(from + j) : -INFINITY;
    }
  }
};

// ---- compute ----

// The sum of `v` over the threads before this one, those of higher warps last; all threads' sum in
// `total`.
__device__ inline int SumBefore(int v, SelectShared& s, int* total) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int sum = v;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int lower = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += lower;
  }
  __syncthreads();
  if (lane == kWarp - 1) s.totals[warp] = sum;
  __syncthreads();
  const int of_warp = s.totals[lane];
  *total = __reduce_add_sync(0xffffffffu, of_warp);
  return __reduce_add_sync(0xffffffffu, lane < warp ? of_warp : 0) + sum - v;
}

// Finds the bin of the member of rank `rank` from the top, its rank there, and the bin's count.
// Clears the bins.
__device__ inline void FindBin(int rank, SelectShared& s) {
  __syncthreads();
  const int bin = kBins - 1 - static_cast<int>(threadIdx.x), count = s.bins[bin];
  s.bins[bin] = 0;
  int total;
  const int before = SumBefore(count, s, &total);
  if (before < rank && rank <= before + count) {
    s.bin = bin;
    s.rank = rank - before;
    s.count = count;
  }
  __syncthreads();
}

// The least and the greatest of all threads' values.
__device__ inline float2 RangeOf(float low, float high, SelectShared& s) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  low = -cuda::WarpMax(-low), high = cuda::WarpMax(high);
  if (lane == 0) s.lows[warp] = low, s.highs[warp] = high;
  __syncthreads();
  return make_float2(-cuda::WarpMax(-s.lows[lane]), cuda::WarpMax(s.highs[lane]));
}

// Appends `v` of the threads that `take` it; `room`: of the list.
template <int kCount>
__device__ void Append(const float (&v)[kCount], const bool (&take)[kCount], float* list, int room,
                       int32_t* listed) {
  const int lane = threadIdx.x % kWarp;
  int count = 0;
#pragma unroll
  for (bool t : take) count += t ? 1 : 0;
  int sum = count;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int lower = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += lower;
  }
  int at = 0;
  if (lane == kWarp - 1 && sum > 0) at = atomicAdd(listed, sum);
  at = __shfl_sync(0xffffffffu, at, kWarp - 1) + sum - count;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (!take[i]) continue;
    if (at < room) list[at] = v[i];
    ++at;
  }
}

// Unsigned numbers in the order of the scores, and back.
__device__ inline uint32_t Ordered(float score) {
  const uint32_t bits = __float_as_uint(score);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t v) {
  return __uint_as_float((v & 0x80000000u) != 0 ? v & 0x7fffffffu : ~v);
}

// The limit, bit by bit.
template <int kEach>
__device__ void FindLimitSlowly(const float* from, int visible, int topk, Held<kEach>& held,
                                SelectShared& s) {
  // How many scores are not below `least`.
  const auto count = [&](uint32_t least) {
    int sum = 0, total;
    for (int begin = 0; begin < visible; begin += held.kStretch) {
      held.Load(from, visible, begin);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const bool there = begin + i * kSelectThreads + static_cast<int>(threadIdx.x) < visible;
        sum += there && Ordered(held.v[i]) >= least ? 1 : 0;
      }
    }
    SumBefore(sum, s, &total);
    return total;
  };
  uint32_t limit = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit /= 2) {
    if (count(limit | bit) >= topk) limit |= bit;
  }
  const int above = limit == 0xffffffffu ? 0 : count(limit + 1);
  if (threadIdx.x == 0) {
    s.limit = FromOrdered(limit);
    s.quota = topk - above;
  }
}

// Finds the last score that is picked, s.limit, and how many of those equal to it are, s.quota.
template <int kEach>
__device__ void FindLimit(const float* from, int visible, int topk, Held<kEach>& held, float* list,
                          SelectShared& s) {
  const int thread = static_cast<int>(threadIdx.x);
  float best = -INFINITY;
  for (int begin = 0; begin < visible; begin += held.kStretch) {
    held.Load(from, visible, begin);
#pragma unroll
    for (float v : held.v) best = fmaxf(best, v);
  }
  const bool some = thread < visible;
  const float2 range = RangeOf(some ? best : INFINITY, best, s);
  const Line line(range.x, range.y);
  int bound = 0;
  if (topk <= min(visible, kSelectThreads)) {
    if (some) atomicAdd(&s.bins[line.BinOf(best)], 1);
    FindBin(topk, s);
    bound = s.bin;
  }

  for (int begin = 0; begin < visible; begin += held.kStretch) {
    held.Load(from, visible, begin);
    bool take[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      take[i] = begin + i * kSelectThreads + thread < visible && line.BinOf(held.v[i]) >= bound;
    }
    Append(held.v, take, list, kListed, &s.listed);
  }
  __syncthreads();
  const int listed = s.listed;
  if (listed > kListed) return FindLimitSlowly(from, visible, topk, held, s);

  const Line fine(line.Edge(bound), range.y);
  for (int i = thread; i < listed; i += kSelectThreads) atomicAdd(&s.bins[fine.BinOf(list[i])], 1);
  FindBin(topk, s);
  const int finals = s.count, rank = s.rank, bin = s.bin;
  if (finals > kFinal) return FindLimitSlowly(from, visible, topk, held, s);
  for (int i = thread; i - thread < listed; i += kSelectThreads) {
    const float v[1] = {i < listed ? list[i] : 0.0f};
    const bool take[1] = {i < listed && fine.BinOf(v[0]) == bin};
    Append(v, take, s.final_scores, kFinal, &s.finals);
  }
  __syncthreads();
  if (thread < finals) {
    const float v = s.final_scores[thread];
    int above = 0, equal = 0;
    for (int i = 0; i < finals; ++i) {
      above += s.final_scores[i] > v ? 1 : 0;
      equal += s.final_scores[i] == v ? 1 : 0;
    }
    if (above < rank && rank <= above + equal) {  // the same from all equal ones
      s.limit = v;
      s.quota = rank - above;
    }
  }
}

// ---- store ----

// A bit for each block above the limit, and for each that equals it.
template <int kEach>
__device__ void Mark(const float* from, int visible, Held<kEach>& held, float limit,
                     uint32_t* above, uint32_t* equal) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int begin = 0; begin < visible; begin += held.kStretch) {
    held.Load(from, visible, begin);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int first = begin + i * kSelectThreads + warp * kWarp;
      const bool there = first + lane < visible;
      const uint32_t is_above = __ballot_sync(0xffffffffu, there && held.v[i] > limit);
      const uint32_t is_equal = __ballot_sync(0xffffffffu, there && held.v[i] == limit);
      if (lane == 0 && first < visible) {
        above[first / kWarp] = is_above;
        equal[first / kWarp] = is_equal;
      }
    }
  }
}

// Writes the marked blocks, of the equal ones the first `quota`.
__device__ inline void Write(const uint32_t* above, const uint32_t* equal, int words, int quota,
                             int topk, int32_t* picks, SelectShared& s) {
  int above_before = 0, equal_before = 0;
  for (int first = 0; first < words; first += kSelectThreads) {
    const int word = first + static_cast<int>(threadIdx.x);
    const uint32_t bits = word < words ? above[word] : 0, ties = word < words ? equal[word] : 0;
    int total;
    const int before = SumBefore(__popc(bits) | __popc(ties) << 16, s, &total);
    int equals = equal_before + static_cast<int>(static_cast<uint32_t>(before) >> 16);
    int at = above_before + (before & 0xffff) + min(equals, quota);
    for (uint32_t left = bits | ties; left != 0; left &= left - 1) {
      const uint32_t bit = left & (0u - left);
      if ((bits & bit) == 0 && equals++ >= quota) continue;
      picks[at++] = word * kWarp + __popc(bit - 1);
    }
    above_before += total & 0xffff;
    equal_before += static_cast<int>(static_cast<uint32_t>(total) >> 16);
  }
  // Nothing is left, unless scores are no numbers.
  const int written = above_before + min(equal_before, quota);
  for (int i = written + static_cast<int>(threadIdx.x); i < topk; i += kSelectThreads)
    picks[i] = -1;
}

// ---- kernel ----

template <int kEach>
__device__ __forceinline__ void SelectRow(const float* from, int visible, int topk, int32_t* picks,
                                          float* list, SelectShared& s) {
  Held<kEach> held;
  FindLimit(from, visible, topk, held, list, s);
  __syncthreads();
  const int words = (visible + kWarp - 1) / kWarp;
  auto* above = reinterpret_cast<uint32_t*>(list);
  uint32_t* equal = above + words;
  Mark(from, visible, held, s.limit, above, equal);
  __syncthreads();
  Write(above, equal, words, s.quota, topk, picks, s);
}

__global__ void __launch_bounds__(kSelectThreads) Select(Selection a) {
  extern __shared__ uint4 select_shared[];
  cuda::LetNextStart();
  auto& s = *reinterpret_cast<SelectShared*>(select_shared);
  auto* list = reinterpret_cast<float*>(select_shared + (sizeof(SelectShared) + 15) / 16);

  const int64_t token = blockIdx.x;
  const int visible = (a.positions[token] + 1) / a.ratio;
  int32_t* picks = a.picks + token * a.pick_stride;
  s.bins[threadIdx.x] = 0;
  if (threadIdx.x == 0) {
    s.listed = s.finals = 0;
    s.limit = -INFINITY, s.quota = 0;  // stays where too few scores are numbers
  }
  cuda::WaitForEarlier();
  if (visible <= a.topk) {
    for (int i = static_cast<int>(threadIdx.x); i < a.topk; i += kSelectThreads) {
      picks[i] = i < visible ? i : -1;
    }
    return;
  }
  const float* from = a.scores + token * a.score_stride;
  if (visible <= kFew * kSelectThreads) {
    SelectRow<kFew>(from, visible, a.topk, picks, list, s);
  } else {
    SelectRow<kMany>(from, visible, a.topk, picks, list, s);
  }
}

inline void SelectAll(Context& k, const Selection& a) {
  const int64_t words = cuda::CeilDiv(a.score_stride, kWarp);
  const int64_t shared = (static_cast<int64_t>(sizeof(SelectShared)) + 15) / 16 * 16 +
                         4 * std::max<int64_t>(kListed, 2 * words);
  cuda::LaunchOverlapped(k, "index_topk", Select, dim3(static_cast<uint32_t>(a.tokens)),
                         dim3(kSelectThreads), shared, a);
}

}  // namespace seacliff::index_topk
