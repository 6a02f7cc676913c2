// embed: token embedding, replicated into the residual streams (spec/model.md 2.1 step 1).
//
//   streams[t, j, :] = table[ids[t], :]   for every stream j
//
// ids: [tokens], each in [0, table.rows). table: [vocab, dim] bf16 or f32.
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
