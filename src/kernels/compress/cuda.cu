// cuda row of compress: a block of threads for each token. Rows are kept once the tokens of their
// sequence have read what was kept before: for the tokens of a decode step in the same launch, else
// in a second one.
#include "kernels/compress/body.cuh"

namespace seacliff::compress {
namespace {

template <bool kIndex, bool kKeep>
__global__ void __launch_bounds__(kMaxThreads) Tokens(const Params a) {
  extern __shared__ __align__(16) std::byte shared[];
  Emit<kIndex, kKeep>(a, blockIdx.x, shared);
}

// The last rows of each sequence's tokens, for later blocks.
__global__ void Keep(const Params a) {
  LetNextStart();
  WaitForEarlier();
  const int64_t token = blockIdx.x, seq = a.seq_of[token];
  const int32_t position = a.positions[token], last = a.positions[a.seq_begin[seq + 1] - 1];
  if (KeepsState(a.ratio, position, last)) KeepRow(a, token, position, a.slots[seq]);
}

}  // namespace

void Cuda(Context& k, const CompressArgs& a) {
  const int64_t tokens = a.keys.shape[0];
  const Params params = ParamsOf(a, k.device()->counters());
  const auto grid = dim3(static_cast<uint32_t>(tokens));
  const int32_t threads = params.dim * params.parts;
  const int64_t shared = SharedBytes(params.parts, params.dim);
  if (tokens <= kFewTokens && params.width <= kMaxOwn * threads) {
    const auto kernel = IsIndex(a) ? Tokens<true, true> : Tokens<false, true>;
    return LaunchOverlapped(k, "compress", kernel, grid, dim3(threads), shared, params);
  }
  const auto kernel = IsIndex(a) ? Tokens<true, false> : Tokens<false, false>;
  LaunchOverlapped(k, "compress", kernel, grid, dim3(threads), shared, params);
  LaunchOverlapped(k, "compress", Keep, grid, dim3(256), 0, params);
}

}  // namespace seacliff::compress
