// index_topk: index scores of every visible ratio-4 block and the best of them (spec/model.md 2.9).
//
//   score[t, j] = sum_h relu(q[t, h] . key[j]) * weights[t, h] * (dim * heads)^-1/2
//
// over blocks j < (position + 1) / ratio, computed only if more than `topk` are visible; else all
// are picked unscored. picks[t, :]: block numbers in ascending order, then -1. On equal scores the
// lower block wins.
//
// q: [tokens, heads, dim] from index_query; weights: [tokens, heads] from weights_proj (unscaled);
// both bf16 or both f32. entries: paged index keys. picks: [tokens, topk].
//
// In bf16, as the official code does it: the scaled weight, each dot product, each product with its
// weight and the sum over heads are rounded to bf16 (ref); faster rows keep f32: their ties differ.
//
// margin: [tokens] f32, or empty: by how much the last pick's score beat the best one left out,
// relative to the largest magnitude of a score (infinite where nothing was left out). A diagnosis
// of ties; a row may leave it to ref.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

struct IndexTopkArgs {
  Act<3> q;
  Act<2> weights;
  int64_t ratio;
  Batch batch;
  PagedView entries;
  View<int32_t, 2> picks;
  View<float, 1> margin = {};
};

void IndexTopk(Context& k, const IndexTopkArgs& a);

namespace index_topk {
bool CpuTakes(const IndexTopkArgs& a);  // bf16, FP4 entries, no margin
void Cpu(Context& k, const IndexTopkArgs& a);
// bf16, FP4 entries of 64 or 128 values in pages of 32, up to 64 heads, contexts below 1.4 million
// tokens, no margin
inline bool CudaTakes(const IndexTopkArgs& a) {
  const int64_t heads = a.q.shape[1], dim = a.q.shape[2];
  return !a.q.exact() && a.entries.format == EntryFormat::kIndexFp4 && a.entries.page_len == 32 &&
         a.ratio == 4 && (dim == 64 || dim == 128) && heads <= 64 &&
         a.batch.compressed_pages.shape[1] <= 11000 && !a.margin;
}
inline constexpr int64_t kCudaScores = int64_t{128} << 20;  // bytes of scores at a time,
inline constexpr int kCudaGroup = 32;                       // but of so many tokens at least
// Bytes of workspace that Cuda asks for where a sequence can have `blocks` blocks; more of anything
// but topk asks for no less (model/memory_plan.h).
constexpr int64_t CudaWorkspace(int64_t tokens, int64_t blocks, int64_t topk) {
  if (blocks <= topk) return 0;
  return std::min(tokens * blocks * 4, std::max(kCudaScores, kCudaGroup * blocks * 4));
}
void Cuda(Context& k, const IndexTopkArgs& a);
void Ref(Context& k, const IndexTopkArgs& a);
}  // namespace index_topk

}  // namespace seacliff
