// compress: pools every finished block of `ratio` tokens into one compressed entry and keeps the
// rows that later blocks need (spec/model.md 2.8).
//
// keys, gates: [tokens, width] f32 (rows may be strided), each token's k and g from the
// compressor's projections; width = overlap * dim, overlap = 2 for ratio 4, else 1.
//
//   g'[p] = g[p] + ape[p mod ratio]
//   block j (tokens ratio*j ..): for each of the dim dimensions, softmax of g' over its members and
//   the weighted sum of k. Members for ratio 4: first half (columns 0..dim) of the 4 tokens of
//   block j-1 and second half of the 4 tokens of block j; for block 0 only the latter. For ratio
//   128: its 128 tokens.
//   c = rms_norm(pooled) * weight; c[last 64] rotated by position ratio*j; Hadamard transform if
//   the entries are index keys; stored in the format of `entries`.
//
// In checkpoint numerics (entries not f32) the pooled vector, the norm, the rotation and the
// transform round to bf16 each.
//
// state: [slots, StateRows(ratio), 2, width] f32 (tensor/state_rows.h); the row of a position holds
// k and g'. Rows of positions before the step are read, then the step's last ones are written. No
// row is read that its own sequence did not write, so a slot needs no reset.
//
// The page of block j is batch.compressed_pages(seq, ratio*j / 128), its slot j mod (128 / ratio).
#pragma once

#include "kernels/common/batch.h"
#include "kernels/context.h"
#include "tensor/paged_view.h"
#include "tensor/state_rows.h"
#include "tensor/view.h"

namespace seacliff {

struct CompressArgs {
  View<const float, 2> keys, gates;
  View<const float, 2> ape;    // [ratio, width]
  View<const Bf16, 1> weight;  // [dim]
  View<const float, 1> frequencies;
  float eps;
  int64_t ratio;
  Batch batch;
  View<float, 4> state;
  PagedView entries;
};

void Compress(Context& k, const CompressArgs& a);

namespace compress {
bool CpuTakes(const CompressArgs& a);  // FP8 or FP4 entries
void Cpu(Context& k, const CompressArgs& a);
// FP8 entries of up to 1,024 values or FP4 entries of 128
inline bool CudaTakes(const CompressArgs& a) {
  const int64_t dim = a.entries.dim;
  const bool kv = a.entries.format == EntryFormat::kKvFp8 && dim % 64 == 0 && dim <= 1024;
  const bool index = a.entries.format == EntryFormat::kIndexFp4 && dim == 128;
  return (kv || index) && a.frequencies.shape[0] == 32;
}
constexpr int64_t kFewTokens = 64;  // at most in one launch,
constexpr int kMaxOwn = 2;          // of so many columns a thread
void Cuda(Context& k, const CompressArgs& a);
void Ref(Context& k, const CompressArgs& a);
}  // namespace compress

}  // namespace seacliff
