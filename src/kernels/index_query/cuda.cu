// cuda row of index_query: a warp takes a head, or some of one token.
#include "kernels/index_query/body.cuh"

namespace seacliff::index_query {
namespace {

constexpr int kWarps = 8;

// splits: blocks of a token.
template <int kValues>
__global__ void __launch_bounds__(kWarps* kWarp) Heads(const Params p, int32_t splits) {
  const int64_t token = blockIdx.x / splits;
  const int split = static_cast<int>(blockIdx.x % splits);
  RoundQueries<kValues>(p, token, split * kWarps + static_cast<int>(threadIdx.x) / kWarp,
                        splits * kWarps);
}

template <int kValues>
void Run(Context& k, const IndexQueryArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1];
  // Few tokens: a warp a head. Many: the sines of a warp serve several heads.
  const int64_t splits =
      tokens < 64 ? CeilDiv(heads, kWarps) : CeilDiv(heads, static_cast<int64_t>(8) * kWarps);
  LaunchOverlapped(k, "index_query", Heads<kValues>, dim3(static_cast<uint32_t>(tokens * splits)),
                   dim3(kWarps * kWarp), 0, ParamsOf(a), static_cast<int32_t>(splits));
}

}  // namespace

void Cuda(Context& k, const IndexQueryArgs& a) {
  switch (a.q.shape[2]) {
    case 64:
      return Run<2>(k, a);
    case 128:
      return Run<4>(k, a);
    default:
      return Run<8>(k, a);
  }
}

}  // namespace seacliff::index_query
