// cuda row of fused: one launch, in which each part has blocks of its own. A part's bits are those
// of its op's own row.
#include <algorithm>
#include <array>

#include "kernels/compress/body.cuh"
#include "kernels/fused/op.h"
#include "kernels/index_query/body.cuh"
#include "kernels/query_rope/body.cuh"
#include "kernels/rms_norm/body.cuh"
#include "kernels/window_insert/body.cuh"

namespace seacliff::fused {
namespace {

using namespace cuda;  // NOLINT: the frame of every CUDA row

static_assert(rms_norm::kMostThreads <= kCudaThreads);
constexpr int kQueryThreads = 256;  // of a block where there are queries alone

// In the order of their blocks: those that take long come first.
enum Part { kKeys, kIndexKeys, kWindow, kNorm, kQuery, kIndexQuery, kParts };

struct Params {
  int32_t blocks[kParts];  // 0: no such part
  compress::Params keys, index_keys;
  window_insert::Params window;
  rms_norm::Params norm;
  query_rope::Params query;
  index_query::Params index_query;
  int32_t index_heads;  // of all tokens
};

// Of so many registers that a block finds room beside those of the products before. !kAll: queries
// alone, which need fewer.
template <bool kAll>
__global__ void __launch_bounds__(kAll ? kCudaThreads : kQueryThreads, kAll ? 2 : 4)
    Blocks(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) std::byte shared[];
  auto block = static_cast<int32_t>(blockIdx.x);
  const auto of = [&](Part part) {
    if (block < p.blocks[part]) return true;
    block -= p.blocks[part];
    return false;
  };
  const auto item = [&] {
    return static_cast<int32_t>((block * blockDim.x + threadIdx.x) / kWarp);
  };
  if constexpr (kAll) {
    if (of(kKeys)) return compress::Emit<false, true>(p.keys, block, shared);
    if (of(kIndexKeys)) return compress::Emit<true, true>(p.index_keys, block, shared);
    if (of(kWindow)) return window_insert::Insert<1>(p.window, item());
    if (of(kNorm)) return rms_norm::Norm<8>(p.norm, block, reinterpret_cast<float*>(shared));
  }
  if (of(kQuery)) return query_rope::NormAndRotate<2>(p.query, item());
  const int32_t heads = p.index_query.heads, i = item();
  if (i < p.index_heads) index_query::RoundQueries<4>(p.index_query, i / heads, i % heads, heads);
}

}  // namespace

void Cuda(Context& k, const FusedArgs& a) {
  Params p = {};
  const bool all = a.keys || a.index_keys || a.window || a.norm;
  const int threads = all ? kCudaThreads : kQueryThreads, warps = threads / kWarp;
  int64_t shared = all ? kWarp * 4 : 0;
  const auto compressor = [&](const CompressArgs& c, int64_t counters, Part part) {
    const compress::Params params = compress::ParamsOf(c, k.device()->counters() + counters);
    p.blocks[part] = static_cast<int32_t>(c.keys.shape[0]);
    shared = std::max(shared, compress::SharedBytes(params.parts, params.dim));
    return params;
  };
  const auto blocks_of = [](int64_t items, int64_t of_block) {
    return static_cast<int32_t>(CeilDiv(items, of_block));
  };
  if (a.keys) p.keys = compressor(*a.keys, 0, kKeys);
  if (a.index_keys) p.index_keys = compressor(*a.index_keys, Device::kCounters / 2, kIndexKeys);
  if (a.window) {
    p.window = window_insert::ParamsOf(*a.window);
    p.blocks[kWindow] = blocks_of(p.window.tokens, warps);
  }
  if (a.norm) {
    p.norm = rms_norm::ParamsOf(*a.norm);
    p.blocks[kNorm] = blocks_of(p.norm.rows, rms_norm::RowsOf(p.norm, threads));
  }
  if (a.query) {
    p.query = query_rope::ParamsOf(*a.query, 1);
    p.blocks[kQuery] = blocks_of(p.query.items, warps);
  }
  if (a.index_query) {
    p.index_query = index_query::ParamsOf(*a.index_query);
    p.index_heads = static_cast<int32_t>(a.index_query->q.shape[0]) * p.index_query.heads;
    p.blocks[kIndexQuery] = blocks_of(p.index_heads, warps);
  }
  uint32_t blocks = 0;
  for (const int32_t n : p.blocks) blocks += static_cast<uint32_t>(n);
  LaunchOverlapped(k, "fused", all ? Blocks<true> : Blocks<false>, dim3(blocks), dim3(threads),
                   shared, p);
}

}  // namespace seacliff::fused
