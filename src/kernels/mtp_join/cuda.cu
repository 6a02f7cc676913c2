// cuda row of mtp_join: a thread for some columns of a token, in all of its streams.
#include "kernels/common/cuda.cuh"
#include "kernels/mtp_join/op.h"

namespace seacliff::mtp_join {
namespace {

constexpr int kThreads = 128;
constexpr int kAtOnce = 4;  // streams whose loads are on their way together

// Numbers that a thread loads and stores at once.
template <int kWidth>
struct alignas(2 * kWidth) Group {
  Bf16 v[kWidth];
};

// `groups` of a token's dim in x, `count` times as many in streams.
template <int kWidth>
__global__ void Join(const Group<kWidth>* x, Group<kWidth>* streams, int64_t groups,
                     int64_t count) {
  const int64_t token = blockIdx.x, i = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  cuda::LetNextStart();
  cuda::WaitForEarlier();
  if (i >= groups) return;
  const Group<kWidth> add = x[token * groups + i];
  Group<kWidth>* to = streams + token * count * groups + i;
  for (int64_t first = 0; first < count; first += kAtOnce, to += kAtOnce * groups) {
    Group<kWidth> sums[kAtOnce];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (first + s < count) sums[s] = to[s * groups];
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (first + s >= count) break;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        cuda::Store(&sums[s].v[j], cuda::Load(&sums[s].v[j]) + cuda::Load(&add.v[j]));
      }
      to[s * groups] = sums[s];
    }
  }
}

template <int kWidth>
void LaunchJoin(Context& k, const MtpJoinArgs& a) {
  const int64_t groups = a.x.shape[1] / kWidth;
  const dim3 grid(static_cast<unsigned>(a.x.shape[0]),
                  static_cast<unsigned>(cuda::CeilDiv(groups, kThreads)));
  cuda::LaunchOverlapped(k, "mtp_join", Join<kWidth>, grid, kThreads, 0,
                         static_cast<const Group<kWidth>*>(a.x.data),
                         static_cast<Group<kWidth>*>(a.streams.data), groups, a.streams.shape[1]);
}

}  // namespace

void Cuda(Context& k, const MtpJoinArgs& a) {
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  if (a.x.shape[1] % 8 == 0 && aligned(a.x.data) && aligned(a.streams.data)) {
    LaunchJoin<8>(k, a);
  } else {
    LaunchJoin<1>(k, a);
  }
}

}  // namespace seacliff::mtp_join
