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

#include <algorithm>
#include <cstdint>

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
// bf16, FP8 entries in pages of 2^n, dim % 64 == 0 up to 512, 32 frequencies
inline bool CudaTakes(const SparseAttentionArgs& a) {
  const int64_t dim = a.q.shape[2];
  const auto fits = [](const PagedView& view) {
    return view.format == EntryFormat::kKvFp8 && (view.page_len & (view.page_len - 1)) == 0;
  };
  return !a.q.exact() && fits(a.window) && (a.ratio == 0 || fits(a.compressed)) && dim % 64 == 0 &&
         dim >= 128 && dim <= 512 && a.frequencies.shape[0] == 32;
}
inline constexpr int kCudaUnit = 32;  // keys
inline constexpr int kCudaFew = 16;   // tokens that a sequence may bring to be shared out
inline constexpr int64_t kCudaWeights = int64_t{512} << 20;  // bytes of their weights at a time,
                                                             // but of one token at least
// Bytes of workspace that Cuda asks for a token with so many keys: weights of bf16, and two f32 a
// head and unit, for whole blocks of heads.
constexpr int64_t CudaTokenBytes(int64_t heads, int64_t keys) {
  return (keys + kCudaUnit - 1) / kCudaUnit * ((heads + 63) / 64 * 64) * (kCudaUnit * 2 + 8);
}
// The same for a step where a token can have `keys` keys; more of anything asks for no less
// (model/memory_plan.h).
constexpr int64_t CudaWorkspace(int64_t tokens, int64_t seqs, int64_t heads, int64_t keys) {
  const int64_t token_bytes = CudaTokenBytes(heads, keys);
  return std::min(std::min(tokens, seqs * kCudaFew) * token_bytes,
                  std::max(kCudaWeights, token_bytes));
}
void Cuda(Context& k, const SparseAttentionArgs& a);
void Ref(Context& k, const SparseAttentionArgs& a);
}  // namespace sparse_attention

}  // namespace seacliff
