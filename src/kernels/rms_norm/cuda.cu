// cuda row of rms_norm: a block for each row, or a warp where rows are short.
#include "kernels/rms_norm/body.cuh"

namespace seacliff::rms_norm {
namespace {

template <int kWidth>
__global__ void Rows(const Params p) {
  __shared__ float scratch[cuda::kWarp];
  Norm<kWidth>(p, blockIdx.x, scratch);
}

}  // namespace

void Cuda(Context& k, const RmsNormArgs& a) {
  const Params p = ParamsOf(a);
  const int threads = p.threads == cuda::kWarp ? 8 * cuda::kWarp : p.threads;
  const dim3 grid(static_cast<uint32_t>(cuda::CeilDiv(p.rows, RowsOf(p, threads))));
  cuda::LaunchOverlapped(k, "rms_norm", IsWide(a) ? Rows<8> : Rows<1>, grid, dim3(threads), 0, p);
}

}  // namespace seacliff::rms_norm
