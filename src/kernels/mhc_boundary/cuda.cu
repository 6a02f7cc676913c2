// cuda row of mhc_boundary: two launches, of kernels that stand in common/mhc.cuh and
// mhc_finish.cuh.
#include "kernels/common/mhc_finish.cuh"
#include "kernels/mhc_boundary/op.h"

namespace seacliff::mhc_boundary {

void Cuda(Context& k, const MhcBoundaryArgs& a) {
  constexpr int kRows = cuda::mhc::kStreams + cuda::mhc::kMixWidth;
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1];
  if (tokens == 0) return;
  const auto* fn = static_cast<const float*>(a.hc.fn.data);
  auto* streams = static_cast<Bf16*>(a.streams.data);
  const cuda::mhc::Parts parts =
      cuda::mhc::LaunchSums<kRows>(k, "mhc_boundary",
                                   {static_cast<const Bf16*>(a.y.data), streams, a.mix.data,
                                    a.mix.stride[0], fn, tokens, dim, nullptr});
  cuda::mhc::LaunchFinish<kRows>(
      k, "mhc_boundary", tokens,
      {streams, nullptr, parts.sums, parts.count, parts.per_group, a.hc.base.data, a.hc.scale.data,
       a.weight.data, a.norm_eps, a.hc_eps, a.iters, a.mix.data, a.mix.stride[0],
       static_cast<Bf16*>(a.x.data), dim});
}

}  // namespace seacliff::mhc_boundary
