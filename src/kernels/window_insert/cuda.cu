// cuda row of window_insert: a warp for each token.
#include "kernels/window_insert/body.cuh"

namespace seacliff::window_insert {
namespace {

constexpr int kWarps = 4;

template <int kParts>
__global__ void __launch_bounds__(kWarps* kWarp) Tokens(const Params p) {
  Insert<kParts>(p, int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp);
}

}  // namespace

void Cuda(Context& k, const WindowInsertArgs& a) {
  const Params p = ParamsOf(a);
  const dim3 grid(static_cast<uint32_t>(CeilDiv(p.tokens, kWarps)));
  LaunchOverlapped(k, "window_insert", p.dim <= kSpan ? Tokens<1> : Tokens<2>, grid,
                   dim3(kWarps * kWarp), 0, p);
}

}  // namespace seacliff::window_insert
