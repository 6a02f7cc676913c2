// cuda row of mhc_head: a boundary with four rows of fn, whose end only chosen tokens see
// (common/mhc.cuh).
#include "kernels/common/mhc_finish.cuh"
#include "kernels/mhc_head/op.h"

namespace seacliff::mhc_head {

void Cuda(Context& k, const MhcHeadArgs& a) {
  constexpr int kRows = cuda::mhc::kStreams;
  const int64_t tokens = a.streams.shape[0], dim = a.x.shape[1], rows = a.rows.shape[0];
  if (tokens == 0 || (rows == 0 && !a.y)) return;
  const auto* fn = static_cast<const float*>(a.hc.fn.data);
  auto* streams = static_cast<Bf16*>(a.streams.data);
  const cuda::mhc::Parts parts =
      cuda::mhc::LaunchSums<kRows>(k, "mhc_head",
                                   {static_cast<const Bf16*>(a.y.data), streams, a.mix.data,
                                    a.mix.stride[0], fn, tokens, dim, nullptr});
  cuda::mhc::LaunchFinish<kRows>(k, "mhc_head", rows,
                                 {streams, a.rows.data, parts.sums, parts.count, parts.per_group,
                                  a.hc.base.data, a.hc.scale.data, a.weight.data, a.norm_eps,
                                  a.hc_eps, 0, nullptr, 0, static_cast<Bf16*>(a.x.data), dim});
}

}  // namespace seacliff::mhc_head
