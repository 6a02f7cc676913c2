// The second kernel of the cuda rows of mhc_boundary and mhc_head: adds up the sums that the first
// (mhc.cuh) left, mixes, and collapses the streams into the normed input of the next sub-block.
#pragma once

#include "kernels/common/mhc.cuh"

namespace seacliff::cuda::mhc {

struct FinishParams {
  const Bf16* streams;
  const int32_t* rows;  // tokens to finish; null: all
  const float* sums;
  int parts, per_group;  // parts of a token, and of a group
  const float *base, *scale;
  const Bf16* weight;
  float norm_eps, hc_eps;
  int64_t iters;
  float* mix;  // of a boundary
  int64_t mix_stride;
  Bf16* x;
  int64_t dim;
};

inline constexpr int kChunks = 2;  // columns of a thread, 8 at a time

__device__ inline float SigmoidOf(float x) { return 1.0f / (1.0f + expf(-x)); }

// The exact quotient is not needed: a pass is wrong by less than its other roundings.
__device__ inline float Reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// Writes post and C of a token; lane i holds value i of m * scale + base.
__device__ inline void WriteMix(float value, const FinishParams& p, float* mix) {
  const int lane = threadIdx.x % kWarp;
  if (lane >= kStreams && lane < 2 * kStreams) mix[lane - kStreams] = 2.0f * SigmoidOf(value);

  // Lanes 8 to 23 hold the matrix, four of them a row.
  float top = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
  const float e = expf(value - top);
  float sum = e + __shfl_xor_sync(0xffffffffu, e, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  const float entry = e / sum + p.hc_eps;

  // Every lane goes on with all of it: sums over lanes would take longer.
  float c[kStreams * kStreams];
#pragma unroll
  for (int i = 0; i < kStreams * kStreams; ++i) {
    c[i] = __shfl_sync(0xffffffffu, entry, 2 * kStreams + i);
  }
  const auto normalise = [&](int begin, int step) {
    float* v = c + begin;
    const float scale = Reciprocal((v[0] + v[step]) + (v[2 * step] + v[3 * step]) + p.hc_eps);
#pragma unroll
    for (int i = 0; i < kStreams; ++i) v[i * step] *= scale;
  };
  for (int64_t pass = 0; pass < p.iters; ++pass) {
    if (pass > 0) {
#pragma unroll
      for (int j = 0; j < kStreams; ++j) normalise(j * kStreams, 1);
    }
#pragma unroll
    for (int k = 0; k < kStreams; ++k) normalise(k, kStreams);
  }
  float mine = 0;
#pragma unroll
  for (int i = 0; i < kStreams * kStreams; ++i) mine = lane == i ? c[i] : mine;
  if (lane < kStreams * kStreams) mix[kStreams + lane] = mine;
}

// kThreads collapse the streams; a warp beside them mixes.
template <int kRows, int kThreads>
__global__ void __launch_bounds__(kThreads + kWarp, kThreads > 256 ? 2 : 3)
    Finish(const FinishParams p) {
  constexpr bool kBoundary = kRows > kStreams;
  __shared__ float groups[kMaxGroups][kSlot<kRows>];
  __shared__ float squares[kThreads / kWarp];

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  // The last tokens first: their streams are still in the cache.
  const int64_t row = gridDim.x - 1 - blockIdx.x;
  const int64_t token = p.rows == nullptr ? row : p.rows[row];

  // What no launch writes.
  const float base = lane < kRows ? p.base[lane] : 0;
  const float scale = lane >= kRows ? 0
                                    : p.scale[lane < kStreams       ? 0
                                              : lane < 2 * kStreams ? 1
                                                                    : 2];
  const bool collapses = warp < kThreads / kWarp;
  Words weights[kChunks] = {};
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int64_t column = (int64_t{i} * kThreads + threadIdx.x) * 8;
    if (collapses && column < p.dim) weights[i] = LoadWords(p.weight + column);
  }
  WaitForEarlier();
  LetNextStart();  // only now: loads of the next launch's weights would delay those of the sums

  // What does not wait for the sums.
  Words v[kChunks][kStreams] = {};
  if (collapses) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const int64_t column = (int64_t{i} * kThreads + threadIdx.x) * 8;
      if (column >= p.dim) continue;
#pragma unroll
      for (int s = 0; s < kStreams; ++s) {
        v[i][s] = LoadWords(p.streams + (token * kStreams + s) * p.dim + column);
      }
    }
  }

  // Groups, then their sum; lane i of every warp holds sum i. Two groups at a time are on their
  // way.
  constexpr int kWarps = kThreads / kWarp + 1;
  const int count = (p.parts + p.per_group - 1) / p.per_group;
  const bool used = lane < kRows || lane == kSquares<kRows>;
  const float* of_token = p.sums + token * p.parts * kSlot<kRows> + lane;
  for (int first = warp; first < count && used; first += 2 * kWarps) {
    float part[2][kGroup];
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const int at = (first + b * kWarps) * p.per_group + i;
        part[b][i] = i < p.per_group && at < p.parts ? of_token[at * kSlot<kRows>] : 0.0f;
      }
    }
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float sum = 0;
#pragma unroll
      for (float v : part[b]) sum = __fadd_rn(sum, v);
      if (first + b * kWarps < count) groups[first + b * kWarps][lane] = sum;
    }
  }
  __syncthreads();
  float total = 0;
#pragma unroll 8
  for (int group = 0; group < count; ++group) total += used ? groups[group][lane] : 0.0f;
  __syncwarp();
  const float square = __shfl_sync(0xffffffffu, total, kSquares<kRows>);
  const float norm = 1.0f / sqrtf(square / static_cast<float>(kStreams * p.dim) + p.norm_eps);
  const float value = total * norm * scale + base;

  if (!collapses) {
    if constexpr (kBoundary) WriteMix(value, p, p.mix + token * p.mix_stride);
    return;
  }
  const float weight = SigmoidOf(value) + p.hc_eps;
  float pre[kStreams];
#pragma unroll
  for (int s = 0; s < kStreams; ++s) pre[s] = __shfl_sync(0xffffffffu, weight, s);

  // Collapse, round, norm.
  Words x[kChunks];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      float low = pre[0] * LowOf(v[i][0].w[w]), high = pre[0] * HighOf(v[i][0].w[w]);
#pragma unroll
      for (int s = 1; s < kStreams; ++s) {
        low += pre[s] * LowOf(v[i][s].w[w]);
        high += pre[s] * HighOf(v[i][s].w[w]);
      }
      x[i].w[w] = Bf16Pair(low, high);
      sum += LowOf(x[i].w[w]) * LowOf(x[i].w[w]);
      sum += HighOf(x[i].w[w]) * HighOf(x[i].w[w]);
    }
  }
  sum = WarpSum(sum);
  if (lane == 0) squares[warp] = sum;
  // Of the collapsing warps alone: the mixing one takes its time.
  asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
  float all = 0;
  for (float part : squares) all += part;
  const float x_norm = 1.0f / sqrtf(all / static_cast<float>(p.dim) + p.norm_eps);
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int64_t column = (int64_t{i} * kThreads + threadIdx.x) * 8;
    if (column >= p.dim) continue;
    Words out;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      out.w[j] = Bf16Pair(LowOf(x[i].w[j]) * x_norm * LowOf(weights[i].w[j]),
                          HighOf(x[i].w[j]) * x_norm * HighOf(weights[i].w[j]));
    }
    StoreWords(p.x + row * p.dim + column, out);
  }
}

template <int kRows>
void LaunchFinish(Context& k, const char* op, int64_t rows, const FinishParams& p) {
  if (!k.ok()) return;  // no memory for the sums
  const bool narrow = p.dim <= kMaxDim / 2;
  const auto kernel = narrow ? Finish<kRows, 256> : Finish<kRows, 512>;
  const dim3 grid(static_cast<unsigned>(rows)), block((narrow ? 256 : 512) + kWarp);
  // Many blocks that wait would stand in the way of those that they wait for.
  if (rows > kFewTokens) {
    Launch(k, op, kernel, grid, block, 0, p);
  } else {
    LaunchOverlapped(k, op, kernel, grid, block, 0, p);
  }
}

}  // namespace seacliff::cuda::mhc
