// sparse_attention: one softmax over the window keys, the compressed keys and the sink; each key is
// its own value; ends with the inverse rotation (spec/model.md 2.5, 2.6, 2.7 step 1).
//
// Keys of the query at position p: window positions max(0, p - window_len + 1) .. p; then
//   ratio 0: none; picks given: the blocks named by picks[t, :] (-1: unused); else every block
//   j < (p + 1) / ratio.
//   s_i = scale * (q[t, h] . key_i);  m = max(max_i s_i, sink_h)
//   o[t, h, :] = sum_i exp(s_i - m) key_i / (sum_i exp(s_i - m) + exp(sink_h - m))
//   o[t, h, last 64] rotated back by p
//
// q, out: [tokens, heads, head_dim], bf16 or f32, distinct memory. sink: [heads] f32, natural log
// units. In bf16 exp(s_i - max_i s_i) is rounded to bf16 for the product with the values (not in
// the denominator), and o is rounded to bf16 before and after the rotation.
#pragma once

#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

struct SparseAttentionArgs {
  Act<3> q;
  PagedView window;
  int64_t window_len;  // keys, the query's own included
  PagedView compressed;
  int64_t ratio;                 // 0: no compressed keys
  View<const int32_t, 2> picks;  // [tokens, topk], or empty
  View<const float, 1> sink;
  float scale;
  View<const float, 1> frequencies;
  Batch batch;
  Act<3> out;
};

void SparseAttention(Context& k, const SparseAttentionArgs& a);

namespace sparse_attention {
bool CpuTakes(const SparseAttentionArgs& a);  // bf16, paged FP8 entries
void Cpu(Context& k, const SparseAttentionArgs& a);
// bf16, FP8 entries, dim % 64 == 0 up to 512, 32 frequencies
inline bool CudaTakes(const SparseAttentionArgs& a) {
  const int64_t dim = a.q.shape[2];
  return !a.q.exact() && a.window.format == EntryFormat::kKvFp8 &&
         (a.ratio == 0 || a.compressed.format == EntryFormat::kKvFp8) && dim % 64 == 0 &&
         dim >= 128 && dim <= 512 && a.frequencies.shape[0] == 32;
}
void Cuda(Context& k, const SparseAttentionArgs& a);
void Ref(Context& k, const SparseAttentionArgs& a);
}  // namespace sparse_attention

}  // namespace seacliff
