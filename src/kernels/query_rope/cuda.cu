// cuda row of query_rope.
#include "kernels/query_rope/body.cuh"

namespace seacliff::query_rope {
namespace {

constexpr int kWarps = 8;

template <int kPieces>
__global__ void __launch_bounds__(kWarps* kWarp) Items(const Params p) {
  NormAndRotate<kPieces>(p, int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp);
}

}  // namespace

void Cuda(Context& k, const QueryRopeArgs& a) {
  const int64_t heads = a.q.shape[0] * a.q.shape[1], dim = a.q.shape[2];
  // Few heads: a warp each. Many: the sines of a warp serve several.
  const Params p = ParamsOf(a, heads > int64_t{64} * kWarps * Multiprocessors(k) ? 4 : 1);
  const dim3 grid(static_cast<uint32_t>(CeilDiv(p.items, kWarps)));
  const auto kernel = dim <= 256 ? Items<1> : dim <= 512 ? Items<2> : Items<4>;
  LaunchOverlapped(k, "query_rope", kernel, grid, dim3(kWarps * kWarp), 0, p);
}

}  // namespace seacliff::query_rope
