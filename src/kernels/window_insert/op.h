// window_insert: the step's window keys: norm, rotation, quantisation, and the store into their
// pages (spec/model.md 2.4; docs/formats.md).
//
//   v = rms_norm(kv[t, :]) * weight, rounded; v[last 64] rotated by positions[t], rounded
//   entry of token t <- v in the format of `window`
//
// kv: [tokens, head_dim], bf16 or f32. The page of token t is
// batch.window_pages(seq, position / 128), its slot position % 128.
#pragma once

#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {

struct WindowInsertArgs {
  Act<2> kv;
  View<const Bf16, 1> weight;
  View<const float, 1> frequencies;
  float eps;
  Batch batch;
  PagedView window;
};

void WindowInsert(Context& k, const WindowInsertArgs& a);

namespace window_insert {
bool CpuTakes(const WindowInsertArgs& a);  // bf16, FP8 entries
void Cpu(Context& k, const WindowInsertArgs& a);
// bf16, FP8 entries, dim % 64 == 0 up to 1,024, 32 frequencies
inline bool CudaTakes(const WindowInsertArgs& a) {
  const int64_t dim = a.kv.shape[1];
  return !a.kv.exact() && a.window.format == EntryFormat::kKvFp8 && dim % 64 == 0 && dim >= 128 &&
         dim <= 1024 && a.frequencies.shape[0] == 32;
}
void Cuda(Context& k, const WindowInsertArgs& a);
void Ref(Context& k, const WindowInsertArgs& a);
}  // namespace window_insert

}  // namespace seacliff
