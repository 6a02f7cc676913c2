// The best of a row of scores, exactly: a radix search for the last score that is picked, then the
// blocks above it, and of those equal to it the first, in ascending order. A block of threads takes
// a token; its scores stay in shared memory if they fit.
#pragma once

#include <algorithm>

#include "kernels/common/cuda.cuh"

namespace seacliff::index_topk {

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
inline constexpr int kSelectWarps = kSelectThreads / cuda::kWarp;
inline constexpr int kDigits = 256;
// Counters of one digit, by lane: scores crowd in few digits, and lanes that add to one counter
// wait for each other.
inline constexpr int kCopies = 8;
inline constexpr int kUnroll = 4;

struct SelectShared {
  int32_t counts[kDigits][kCopies];
  int32_t totals[kDigits];
  int32_t above[kSelectWarps], equal[kSelectWarps];
  int32_t digit, rank;
};

// ---- load ----

// Unsigned numbers in the order of the scores.
__device__ inline uint32_t Ordered(float score) {
  const uint32_t bits = __float_as_uint(score);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// ---- compute ----

// Counts the digits at `shift` of the scores whose higher digits are those of `prefix`.
__device__ inline void CountDigits(const float* from, float* keep, int visible, int shift,
                                   uint32_t prefix, SelectShared& s) {
  for (int begin = static_cast<int>(threadIdx.x); begin < visible;
       begin += kUnroll * kSelectThreads) {
    float scores[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int j = begin + i * kSelectThreads;
      scores[i] = j < visible ? from[j] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int j = begin + i * kSelectThreads;
      if (j >= visible) continue;
      if (keep != nullptr) keep[j] = scores[i];
      const uint32_t ordered = Ordered(scores[i]);
      const bool member = shift == 24 || (ordered ^ prefix) >> (shift + 8) == 0;
      if (member) atomicAdd(&s.counts[ordered >> shift & 255u][threadIdx.x % kCopies], 1);
    }
  }
}

// The digit of the score that is at `rank` from the top, and its rank among those of that digit,
// left in s. Clears the counters.
__device__ inline void FindDigit(int rank, SelectShared& s) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kDigits) {
    int total = 0;
#pragma unroll
    for (int32_t& count : s.counts[thread]) {
      total += count;
      count = 0;
    }
    s.totals[thread] = total;
  }
  __syncthreads();
  if (thread < cuda::kWarp) {
    constexpr int kEach = kDigits / cuda::kWarp;
    const int top = kDigits - 1 - kEach * thread;  // this lane's digits, downwards
    int sum = 0;
    for (int i = 0; i < kEach; ++i) sum += s.totals[top - i];
    int before = sum;
#pragma unroll
    for (int offset = 1; offset < cuda::kWarp; offset *= 2) {
      const int lower = __shfl_up_sync(0xffffffffu, before, offset);
      if (thread >= offset) before += lower;
    }
    before -= sum;
    if (before < rank && rank <= before + sum) {  // just one lane
      int digit = top;
      while (before + s.totals[digit] < rank) before += s.totals[digit--];
      s.digit = digit;
      s.rank = rank - before;
    }
  }
  __syncthreads();
}

// ---- store ----

// Picks what is above `limit`, and the first `quota` that equal it. Each warp has a stretch of
// blocks; it counts them before it knows where its picks begin.
__device__ inline void Compact(const float* from, int visible, uint32_t limit, int quota,
                               int32_t* picks, SelectShared& s) {
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
  const int rows = (visible + cuda::kWarp - 1) / cuda::kWarp;
  const int stretch = (rows + kSelectWarps - 1) / kSelectWarps * cuda::kWarp;
  const int begin = warp * stretch, end = min(begin + stretch, visible);
  int above = 0, equal = 0;
  for (int base = begin; base < end; base += kUnroll * cuda::kWarp) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int j = base + i * cuda::kWarp + lane;
      const uint32_t ordered = j < end ? Ordered(from[j]) : 0;
      above += j < end && ordered > limit ? 1 : 0;
      equal += j < end && ordered == limit ? 1 : 0;
    }
  }
  above = __reduce_add_sync(0xffffffffu, above);
  equal = __reduce_add_sync(0xffffffffu, equal);
  if (lane == 0) {
    s.above[warp] = above;
    s.equal[warp] = equal;
  }
  __syncthreads();
  above = __reduce_add_sync(0xffffffffu, lane < warp ? s.above[lane] : 0);
  equal = __reduce_add_sync(0xffffffffu, lane < warp ? s.equal[lane] : 0);

  const uint32_t lower = (1u << lane) - 1;
  for (int base = begin; base < end; base += kUnroll * cuda::kWarp) {
    float scores[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int j = base + i * cuda::kWarp + lane;
      scores[i] = j < end ? from[j] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int j = base + i * cuda::kWarp + lane;
      const uint32_t ordered = Ordered(scores[i]);
      const bool is_above = j < end && ordered > limit, is_equal = j < end && ordered == limit;
      const uint32_t all_above = __ballot_sync(0xffffffffu, is_above);
      const uint32_t all_equal = __ballot_sync(0xffffffffu, is_equal);
      const int equals = equal + __popc(all_equal & lower);
      if (is_above || (is_equal && equals < quota)) {
        picks[above + __popc(all_above & lower) + min(equals, quota)] = j;
      }
      above += __popc(all_above);
      equal += __popc(all_equal);
    }
  }
}

// ---- kernel ----

// `kept`: how many scores shared memory holds.
__global__ void __launch_bounds__(kSelectThreads) Select(Selection a, int kept) {
  extern __shared__ SelectShared select_shared[];
  SelectShared& s = select_shared[0];
  auto* keep = reinterpret_cast<float*>(select_shared + 1);

  const int64_t token = blockIdx.x;
  const int visible = (a.positions[token] + 1) / a.ratio;
  int32_t* picks = a.picks + token * a.pick_stride;
  if (visible <= a.topk) {
    for (int i = static_cast<int>(threadIdx.x); i < a.topk; i += kSelectThreads) {
      picks[i] = i < visible ? i : -1;
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kDigits * kCopies; i += kSelectThreads) {
    s.counts[i / kCopies][i % kCopies] = 0;
  }
  __syncthreads();

  const float* from = a.scores + token * a.score_stride;
  uint32_t limit = 0;
  int rank = a.topk;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const bool first = shift == 24 && visible <= kept;
    CountDigits(from, first ? keep : nullptr, visible, shift, limit, s);
    if (first) from = keep;
    __syncthreads();
    FindDigit(rank, s);
    limit |= static_cast<uint32_t>(s.digit) << shift;
    rank = s.rank;
  }
  Compact(from, visible, limit, rank, picks, s);
}

inline void SelectAll(Context& k, const Selection& a) {
  // Many tokens: two blocks on a multiprocessor are worth more than scores at hand.
  constexpr int64_t kPlenty = 80 * 1024;
  int64_t room = cuda::SharedLimit(k) - 1024 - static_cast<int64_t>(sizeof(SelectShared));
  if (a.tokens > cuda::Multiprocessors(k)) room = std::min(room, kPlenty);
  const int64_t kept = std::min(room / 4, a.score_stride);
  cuda::Launch(k, "index_topk", Select, dim3(static_cast<uint32_t>(a.tokens)), dim3(kSelectThreads),
               static_cast<int64_t>(sizeof(SelectShared)) + kept * 4, a, static_cast<int>(kept));
}

}  // namespace seacliff::index_topk
