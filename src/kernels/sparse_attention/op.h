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
void Ref(Context& k, const SparseAttentionArgs& a);
}

}  // namespace seacliff
