// What a thread of rms_norm does (device code): a block has one row, or a row a warp where rows are
// short.
#pragma once

#include <algorithm>

#include "kernels/common/cuda.cuh"
#include "kernels/rms_norm/op.h"

namespace seacliff::rms_norm {

struct Params {
  const Bf16* x;
  const Bf16* weight;
  Bf16* out;  // may be x
  int64_t rows, dim;
  float eps;
  int32_t threads;  // of a row; a warp's: each warp has one
};

inline constexpr int kHeld = 2;           // groups that a thread holds
inline constexpr int kMostThreads = 512;  // of a row

inline Params ParamsOf(const RmsNormArgs& a) {
  const int64_t dim = a.x.shape[1], groups = IsWide(a) ? dim / 8 : dim;
  const int64_t threads =
      std::min<int64_t>(cuda::CeilDiv(groups, cuda::kWarp) * cuda::kWarp, kMostThreads);
  return {static_cast<const Bf16*>(a.x.data),
          a.weight.data,
          static_cast<Bf16*>(a.out.data),
          a.x.shape[0],
          dim,
          a.eps,
          groups <= 2 * cuda::kWarp ? cuda::kWarp : static_cast<int32_t>(threads)};
}

// How many rows a block of so many threads has.
__host__ __device__ inline int RowsOf(const Params& p, int threads) {
  return p.threads == cuda::kWarp ? threads / cuda::kWarp : 1;
}

// Numbers that a thread loads and stores at once.
template <int kWidth>
struct alignas(2 * kWidth) Group {
  Bf16 v[kWidth];
};

// Row `block` or, of short rows, as many as the block has warps. Threads beyond those of a row have
// nothing to do. The first groups of a thread stay in registers; the others are read twice, the
// second time from L1. A thread writes only what it alone reads. `scratch` is 32 floats of shared
// memory.
template <int kWidth>
__device__ inline void Norm(const Params& p, int64_t block, float* scratch) {
  using cuda::kWarp;
  const bool warps = p.threads == kWarp;
  const int thread = static_cast<int>(warps ? threadIdx.x % kWarp : threadIdx.x);
  const int64_t row =
      warps ? block * RowsOf(p, static_cast<int>(blockDim.x)) + threadIdx.x / kWarp : block;
  const auto* x = reinterpret_cast<const Group<kWidth>*>(p.x + row * p.dim);
  const auto* weight = reinterpret_cast<const Group<kWidth>*>(p.weight);
  auto* out = reinterpret_cast<Group<kWidth>*>(p.out + row * p.dim);
  const int64_t groups = row < p.rows && thread < p.threads ? p.dim / kWidth : 0;

  cuda::LetNextStart();
  Group<kWidth> held[kHeld], weights[kHeld];
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    const int64_t i = thread + int64_t{n} * p.threads;
    if (i < groups) weights[n] = weight[i];
  }
  cuda::WaitForEarlier();
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    const int64_t i = thread + int64_t{n} * p.threads;
    if (i < groups) held[n] = x[i];
  }
  float sum = 0;
  const auto add = [&](const Group<kWidth>& in) {
#pragma unroll
    for (const Bf16& v : in.v) sum += cuda::Load(&v) * cuda::Load(&v);
  };
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    if (thread + int64_t{n} * p.threads < groups) add(held[n]);
  }
  const int64_t rest = thread + int64_t{kHeld} * p.threads;
#pragma unroll 4
  for (int64_t i = rest; i < groups; i += p.threads) add(x[i]);
  sum = warps ? cuda::WarpSum(sum) : cuda::BlockSum(sum, scratch);
  const float norm = 1.0f / sqrtf(sum / static_cast<float>(p.dim) + p.eps);
  const auto store = [&](int64_t i, const Group<kWidth>& in, const Group<kWidth>& w) {
    Group<kWidth> result;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      cuda::Store(&result.v[j], cuda::Load(&in.v[j]) * norm * cuda::Load(&w.v[j]));
    }
    out[i] = result;
  };
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    const int64_t i = thread + int64_t{n} * p.threads;
    if (i < groups) store(i, held[n], weights[n]);
  }
#pragma unroll 4
  for (int64_t i = rest; i < groups; i += p.threads) store(i, x[i], weight[i]);
}

}  // namespace seacliff::rms_norm
