// The row of fused that asks each part's own op, and what the CUDA row takes in one launch.
#include "kernels/device.h"
#include "kernels/fused/op.h"

namespace seacliff::fused {
namespace {

// Whether `takes` says so of a part that is there.
template <typename Args, typename F>
bool All(const std::optional<Args>& part, F takes) {
  return !part || takes(*part);
}

bool NormTakes(const RmsNormArgs& a) {
  return a.x.shape[0] <= kCudaTokens && rms_norm::CudaTakes(a) && rms_norm::IsWide(a);
}

bool WindowTakes(const WindowInsertArgs& a) {
  return a.batch.tokens() <= kCudaTokens && window_insert::CudaTakes(a) && a.kv.shape[1] <= 512;
}

bool CompressTakes(const CompressArgs& a) {
  // Each of two compressors has half of the device's counters, one for a sequence.
  return a.batch.tokens() <= kCudaTokens && compress::CudaTakes(a) &&
         a.entries.dim <= kCudaThreads && a.ape.shape[1] <= compress::kMaxOwn * kCudaThreads &&
         a.batch.seqs() <= Device::kCounters / 2;
}

bool KeysTake(const CompressArgs& a) {
  return CompressTakes(a) && a.entries.format == EntryFormat::kKvFp8;
}
bool IndexKeysTake(const CompressArgs& a) {
  return CompressTakes(a) && a.entries.format == EntryFormat::kIndexFp4;
}

bool QueryTakes(const QueryRopeArgs& a) {
  return a.q.shape[0] <= kCudaTokens && query_rope::CudaTakes(a) && a.q.shape[2] <= 512;
}

bool IndexQueryTakes(const IndexQueryArgs& a) {
  return a.q.shape[0] <= kCudaTokens && index_query::CudaTakes(a) && a.q.shape[2] == 128;
}

}  // namespace

bool CudaTakes(const FusedArgs& a) {
  return All(a.norm, NormTakes) && All(a.window, WindowTakes) && All(a.keys, KeysTake) &&
         All(a.index_keys, IndexKeysTake) && All(a.query, QueryTakes) &&
         All(a.index_query, IndexQueryTakes);
}

bool CudaPartsTakes(const FusedArgs& a) {
  return All(a.norm, rms_norm::CudaTakes) && All(a.window, window_insert::CudaTakes) &&
         All(a.keys, compress::CudaTakes) && All(a.index_keys, compress::CudaTakes) &&
         All(a.query, query_rope::CudaTakes) && All(a.index_query, index_query::CudaTakes);
}

void Parts(Context& k, const FusedArgs& a) {
  if (a.window) WindowInsert(k, *a.window);
  if (a.keys) Compress(k, *a.keys);
  if (a.index_keys) Compress(k, *a.index_keys);
  if (a.norm) RmsNorm(k, *a.norm);
  if (a.query) QueryRope(k, *a.query);
  if (a.index_query) IndexQuery(k, *a.index_query);
}

}  // namespace seacliff::fused
