// Steps 4 to 6 of sample on a device: where top_k and top_p cut a row's logits off, found by their
// digits; the token drawn among those that stay; and the best logits, for logprobs. Each kernel
// takes all jobs; a block has chunks of one, and the last of a job's blocks finishes it.
#pragma once

#include "kernels/sample/rows.cuh"

namespace seacliff::sample {

// ---- types ----

inline constexpr int kBins = 2048;
inline constexpr int kLevels = 3;  // a key's digits: 11, 11 and 10 bits

// Of a stretch of ids: the weight that stays whatever the others are, and how many logits are at
// the cut.
struct Share {
  Sum above, equal;
};

// What those at the cut add: the first `count` of them stay.
struct Ties {
  Sum count, weight;
  __device__ Sum Stay(const Share& share, Sum before) const {
    const Sum left = count > before ? count - before : 0;
    return share.above + min(share.equal, left) * weight;
  }
};

// ---- the end of a prefix ----

// Counters of 64 bits as two of 32: shared memory adds those in one instruction.
struct Histogram {
  uint32_t low[kBins], high[kBins];

  __device__ void Add(uint32_t bin, Sum amount) {
    const auto lower = static_cast<uint32_t>(amount);
    const uint32_t before = atomicAdd(&low[bin], lower);
    const uint32_t upper = static_cast<uint32_t>(amount >> 32) + (before > ~lower ? 1 : 0);
    if (upper != 0) atomicAdd(&high[bin], upper);
  }
};

// Whether search number `search` of a job is for the `keep` best, or for top_p of the weight; a job
// may have none, one, or both, in that order.
__device__ inline bool ByCount(const Job& job, int search) { return search == 0 && job.keep > 0; }
__device__ inline bool Searches(const Job& job, int search) {
  return ByCount(job, search) || (job.top_p < 1 && search == (job.keep > 0 ? 1 : 0));
}

// Which digit is the one at which the counts from above reach what is wanted. Clears the histogram.
__device__ inline void FindDigit(Job& job, const Weights& weights, Sum* histogram, bool by_count,
                                 int level, int bits) {
  constexpr int kOwn = kBins / kThreads;
  const int top = kBins - 1 - static_cast<int>(threadIdx.x) * kOwn;  // bins from here downwards
  Sum counts[kOwn], sum = 0, total;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    counts[i] = __ldcg(&histogram[top - i]);
    histogram[top - i] = 0;
    sum += counts[i];
  }
  const Sum rest = __ldcg(&job.rest), surplus = job.surplus;
  const uint32_t prefix = level == 0 ? 0 : job.prefix << bits;
  Sum wanted = level == 0 ? static_cast<Sum>(job.keep) : job.wanted;
  Sum before = Inclusive(sum, total) - sum;
  if (level == 0 && !by_count) {
    total = total + rest - surplus;
    wanted = static_cast<Sum>(ceil(job.top_p * static_cast<double>(total)));
    wanted = min(max(wanted, Sum{1}), total);
  }
  uint32_t key = 0;
  Sum count = 0, rank = 0;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    if (before < wanted && wanted <= before + counts[i]) {
      key = prefix | static_cast<uint32_t>(top - i);
      count = counts[i];
      rank = wanted - before;
    }
    before += counts[i];
  }
  if (count == 0) return;  // it is another thread's
  job.prefix = key;
  job.wanted = rank;
  if (level < kLevels - 1) return;
  const Sum weight = weights.Of(LogitOfKey(key));
  job.cut_key = key;
  if (by_count) {
    job.cut_ties = rank;
    job.surplus = (count - rank) * weight;
  } else {
    job.cut_ties = weight == 0 ? 1 : (rank + weight - 1) / weight;
  }
}

// Block (job, chunks): one digit of one search.
__global__ void __launch_bounds__(kThreads, 3)
    Search(Job* jobs, Sum* histograms, int search, int level) {
  __shared__ Histogram shared;
  const int thread = static_cast<int>(threadIdx.x);
  cuda::WaitForEarlier();
  cuda::LetNextStart();
  Job& job = jobs[blockIdx.x];
  const int32_t vocab = job.vocab, stride = static_cast<int32_t>(gridDim.y) * kChunk;
  int32_t first = static_cast<int32_t>(blockIdx.y) * kChunk;
  if (first >= vocab || !Searches(job, search)) return;
  const Sum best = *job.best;
  if (!Usable(best)) return;

  for (int i = thread; i < kBins; i += kThreads) shared.low[i] = shared.high[i] = 0;
  __syncthreads();
  const float* from = job.logits;
  const bool by_count = ByCount(job, search);
  const int bits = level < kLevels - 1 ? 11 : 10, shift = level == 0 ? 21 : level == 1 ? 10 : 0;
  const Weights weights(job, best);
  const uint32_t prefix = job.prefix, cut_key = job.cut_key;
  // Most logits of most rows are of no account. They are not before the first digit's end, so that
  // later digits need not know them.
  const Sum least = by_count || level > 0 ? 0 : job.least;
  Sum rest = 0;
  for (; first < vocab; first += stride) {
    const int32_t count = min(kChunk, vocab - first);
    float logits[kEach];
    Load(from + first, count, logits);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const uint32_t key = KeyOf(logits[i]);
      if (PlaceOf(i) >= count || key < cut_key) continue;
      if (level > 0 && key >> (shift + bits) != prefix) continue;
      const Sum amount = by_count ? 1 : weights.Of(logits[i]);
      if (amount < least) {
        rest += amount;
      } else if (amount != 0) {
        shared.Add(key >> shift & ((1u << bits) - 1), amount);
      }
    }
  }
  __syncthreads();
  Sum* histogram = histograms + int64_t{blockIdx.x} * kBins;
  for (int i = thread; i < kBins; i += kThreads) {
    const Sum amount = Sum{shared.high[i]} << 32 | shared.low[i];
    if (amount != 0) atomicAdd(&histogram[i], amount);
  }
  if (least > 0) {
    rest = WarpTotal(rest);
    if (thread % cuda::kWarp == 0 && rest != 0) atomicAdd(&job.rest, rest);
  }
  if (LastBlock(job)) FindDigit(job, weights, histogram, by_count, level, bits);
}

// ---- the token ----

// What single logits contribute. A copy of what the job says, for registers.
struct Shares {
  Weights weights;
  uint32_t cut, floor;
  float min_p;
  // The sum that logprobs need is of all weights; their cut is only for the list.
  __device__ Shares(const Job& job, Sum best)
      : weights(job, best),
        cut(job.cut_key),
        floor(job.draws ? job.cut_key : 0),
        min_p(job.min_p) {}
  __device__ Share Of(float logit) const {
    const uint32_t key = KeyOf(logit);
    return {key > floor ? weights.Of(logit, min_p) : 0, key == cut ? Sum{1} : 0};
  }
};

// A place in a row: an item, and what comes before it.
struct Spot {
  int32_t index;
  Sum weight, ties;
};

// This thread's stretch of a block's items.
struct Stretch {
  int32_t begin, end;
  Sum before, ties, weight;  // weight and ties before it, its own weight
};

// All items follow after `from`; total: the weight of all with what is before.
template <typename Item>
__device__ Stretch StretchOf(int32_t count, const Spot& from, const Ties& ties, Sum& total,
                             const Item& item) {
  const int32_t each = (count + kThreads - 1) / kThreads;
  Stretch s;
  s.begin = min(static_cast<int32_t>(threadIdx.x) * each, count);
  s.end = min(s.begin + each, count);
  Sum equal = 0;
  for (int32_t i = s.begin; i < s.end; ++i) equal += item(i).equal;
  s.ties = from.ties + Inclusive(equal, total) - equal;
  s.weight = 0;
  Sum before = s.ties;
  for (int32_t i = s.begin; i < s.end; ++i) {
    const Share share = item(i);
    s.weight += ties.Stay(share, before);
    before += share.equal;
  }
  s.before = from.weight + Inclusive(s.weight, total) - s.weight;
  total += from.weight;
  return s;
}

// The item at which the running sum exceeds `target`, if it is of this thread's.
template <typename Item>
__device__ void Find(const Stretch& s, Sum target, const Ties& ties, Spot& found,
                     const Item& item) {
  if (target < s.before || target >= s.before + s.weight) return;
  Sum weight = s.before, equal = s.ties;
  for (int32_t i = s.begin; i < s.end; ++i) {
    const Share share = item(i);
    const Sum stays = ties.Stay(share, equal);
    if (target < weight + stays) {
      found = {i, weight, equal};
      return;
    }
    weight += stays;
    equal += share.equal;
  }
}

// Step 6, from the shares of a job's slices.
__device__ inline void DrawToken(Job& job, const Shares& of_job, const Share* shares) {
  __shared__ Spot spot;
  const Ties ties = {job.cut_ties, job.cut_ties == 0
                                       ? 0
                                       : of_job.weights.Of(LogitOfKey(of_job.cut), of_job.min_p)};
  const auto slice = [&](int32_t i) {
    return Share{__ldcg(&shares[i].above), __ldcg(&shares[i].equal)};
  };
  Sum total;
  if (threadIdx.x == 0) spot = {};
  const int32_t slices = static_cast<int32_t>(cuda::CeilDiv(job.vocab, kSlice));
  const Stretch of_slices = StretchOf(slices, {}, ties, total, slice);
  // u times the sum may round up to the sum itself: then the last that has a weight.
  const Sum target = min(static_cast<Sum>(job.u * static_cast<double>(total)), total - 1);
  Find(of_slices, target, ties, spot, slice);
  __syncthreads();
  const Spot begin = spot;
  const int32_t first = begin.index * kSlice;
  const float* logits = job.logits + first;
  const auto one = [&](int32_t i) { return of_job.Of(__ldca(logits + i)); };
  const int32_t count = min(kSlice, job.vocab - first);
  const Stretch of_ids = StretchOf(count, begin, ties, total, one);
  Find(of_ids, target, ties, spot, one);
  __syncthreads();
  if (threadIdx.x == 0) job.id = first + spot.index;
}

// Block (job, chunks): the sum of weights, and the token of jobs that draw one. shares: [jobs,
// slices].
__global__ void __launch_bounds__(kThreads, 3) Choose(Job* jobs, Share* shares, int32_t slices) {
  const int warp = threadIdx.x / cuda::kWarp, lane = threadIdx.x % cuda::kWarp;
  cuda::WaitForEarlier();
  cuda::LetNextStart();
  Job& job = jobs[blockIdx.x];
  const int32_t vocab = job.vocab, stride = static_cast<int32_t>(gridDim.y) * kChunk;
  int32_t first = static_cast<int32_t>(blockIdx.y) * kChunk;
  if (first >= vocab) return;
  const Sum best = *job.best;
  if (!Usable(best)) return;

  const float* from = job.logits;
  const Shares of_job(job, best);
  shares += int64_t{blockIdx.x} * slices;
  Sum total = 0;
  for (; first < vocab; first += stride) {
    const int32_t count = min(kChunk, vocab - first);
    float logits[kEach];
    Load(from + first, count, logits);
    Share own = {};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (PlaceOf(i) >= count) continue;
      const Share share = of_job.Of(logits[i]);
      own.above += share.above;
      own.equal += share.equal;
    }
    own.above = WarpTotal(own.above);
    own.equal = __reduce_add_sync(0xffffffffu, static_cast<uint32_t>(own.equal));
    total += own.above;
    if (lane == 0 && warp * kSlice < count) shares[first / kSlice + warp] = own;
  }
  if (!job.draws && lane == 0) atomicAdd(&job.sum, total);
  if (job.draws && LastBlock(job)) DrawToken(job, of_job, shares);
}

// ---- logprobs ----

// Block (job, chunk): the logits that stay, in any order, and that of the row's token.
__global__ void __launch_bounds__(kThreads)
    Collect(Job* jobs, const Share* shares, int32_t slices) {
  const int thread = static_cast<int>(threadIdx.x);
  cuda::WaitForEarlier();
  cuda::LetNextStart();
  Job& job = jobs[blockIdx.x];
  const int32_t first = static_cast<int32_t>(blockIdx.y) * kChunk;
  if (first >= job.vocab || job.draws || !Usable(*job.best) || !Usable(job.row->best)) return;
  if (first == 0 && thread == 0) {
    job.logit = job.logits[job.draw != nullptr ? job.draw->id : IdOfBest(job.row->best)];
  }
  if (job.top_size == 0) return;

  shares += int64_t{blockIdx.x} * slices;
  Sum equal = 0, ties = 0, all;
  for (int32_t i = thread; i < first / kSlice; i += kThreads) {
    equal += shares[i].equal;
  }
  Inclusive(equal, ties);
  const int32_t begin = min(first + thread * kEach, job.vocab);
  const int32_t end = min(begin + kEach, job.vocab);
  equal = 0;
  for (int32_t id = begin; id < end; ++id) equal += KeyOf(job.logits[id]) == job.cut_key ? 1 : 0;
  ties += Inclusive(equal, all) - equal;
  for (int32_t id = begin; id < end; ++id) {
    const float logit = job.logits[id];
    const uint32_t key = KeyOf(logit);
    const bool stays = key > job.cut_key || (key == job.cut_key && ties < job.cut_ties);
    ties += key == job.cut_key ? 1 : 0;
    if (!stays) continue;
    const uint32_t at = atomicAdd(&job.listed, 1u);
    if (at < static_cast<uint32_t>(job.top_size)) job.top[at] = {logit, id};
  }
}

}  // namespace seacliff::sample
