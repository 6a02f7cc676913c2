// embed: token embedding, replicated into the residual streams (spec/model.md 2.1 step 1).
//
//   streams[t, j, :] = table[ids[t] - first, :]   for every stream j
//
// ids: [tokens]. table: [rows, dim] bf16 or f32, of the ids first .. first + rows - 1; the streams
// of every other id are 0.
// streams: [tokens, streams, dim], bf16 (checkpoint) or f32 (exact).
#pragma once

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct EmbedArgs {
  View<const int32_t, 1> ids;
  Matrix table;
  Act<3> streams;
  int64_t first = 0;
};

void Embed(Context& k, const EmbedArgs& a);

namespace embed {
bool CpuTakes(const EmbedArgs& a);  // table and streams bf16
void Cpu(Context& k, const EmbedArgs& a);
inline bool CudaTakes(const EmbedArgs& a) {  // streams bf16, table bf16 or f32
  return !a.streams.exact() && a.table.layout == WeightLayout::kRowMajor &&
         (a.table.format == WeightFormat::kBf16 || a.table.format == WeightFormat::kF32);
}
void Cuda(Context& k, const EmbedArgs& a);
void Ref(Context& k, const EmbedArgs& a);
}  // namespace embed

}  // namespace seacliff
