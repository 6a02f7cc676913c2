// cuda row of rms_norm: a block for each row, or a warp where rows are short.
#include <algorithm>

#include "kernels/common/cuda.cuh"
#include "kernels/rms_norm/op.h"

namespace seacliff::rms_norm {
namespace {

using cuda::BlockSum;
using cuda::kWarp;

constexpr int kHeld = 2;  // groups that a thread holds

struct Params {
  const Bf16* x;
  const Bf16* weight;
  Bf16* out;  // may be x
  int64_t rows, dim;
  float eps;
};

// Numbers that a thread loads and stores at once.
template <int kWidth>
struct alignas(2 * kWidth) Group {
  Bf16 v[kWidth];
};

// The first groups of a thread stay in registers; the others are read twice, the second time from
// L1. A thread writes only what it alone reads.
template <int kWidth>
__global__ void Norm(const Params p) {
  __shared__ float scratch[kWarp];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const auto* x = reinterpret_cast<const Group<kWidth>*>(p.x + row * p.dim);
  const auto* weight = reinterpret_cast<const Group<kWidth>*>(p.weight);
  auto* out = reinterpret_cast<Group<kWidth>*>(p.out + row * p.dim);
  const int64_t groups = row < p.rows ? p.dim / kWidth : 0;

  cuda::LetNextStart();
  Group<kWidth> held[kHeld], weights[kHeld];
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    const int64_t i = threadIdx.x + int64_t{n} * blockDim.x;
    if (i < groups) weights[n] = weight[i];
  }
  cuda::WaitForEarlier();
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    const int64_t i = threadIdx.x + int64_t{n} * blockDim.x;
    if (i < groups) held[n] = x[i];
  }
  float sum = 0;
  const auto add = [&](const Group<kWidth>& in) {
#pragma unroll
    for (const Bf16& v : in.v) sum += cuda::Load(&v) * cuda::Load(&v);
  };
#pragma unroll
  for (int n = 0; n < kHeld; ++n) {
    if (threadIdx.x + int64_t{n} * blockDim.x < groups) add(held[n]);
  }
  const int64_t rest = threadIdx.x + int64_t{kHeld} * blockDim.x;
#pragma unroll 4
  for (int64_t i = rest; i < groups; i += blockDim.x) add(x[i]);
  // More than a warp in x is one row; else each warp is a row of its own.
  sum = blockDim.x > kWarp ? BlockSum(sum, scratch) : cuda::WarpSum(sum);
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
    const int64_t i = threadIdx.x + int64_t{n} * blockDim.x;
    if (i < groups) store(i, held[n], weights[n]);
  }
#pragma unroll 4
  for (int64_t i = rest; i < groups; i += blockDim.x) store(i, x[i], weight[i]);
}

}  // namespace

void Cuda(Context& k, const RmsNormArgs& a) {
  const Params p = {static_cast<const Bf16*>(a.x.data),
                    a.weight.data,
                    static_cast<Bf16*>(a.out.data),
                    a.x.shape[0],
                    a.x.shape[1],
                    a.eps};
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  const bool wide = p.dim % 8 == 0 && aligned(p.x) && aligned(p.weight) && aligned(p.out);
  // Short rows: a warp each, eight to a block. Their sums do not depend on the rows beside them.
  const int64_t groups = wide ? p.dim / 8 : p.dim;
  const int64_t threads = std::min<int64_t>(cuda::CeilDiv(groups, kWarp) * kWarp, 512);
  const dim3 block = groups <= 2 * kWarp ? dim3(kWarp, 8) : dim3(static_cast<unsigned>(threads));
  const dim3 grid(static_cast<unsigned>(cuda::CeilDiv(p.rows, block.y)));
  cuda::LaunchOverlapped(k, "rms_norm", wide ? Norm<8> : Norm<1>, grid, block, 0, p);
}

}  // namespace seacliff::rms_norm
