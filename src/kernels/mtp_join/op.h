// mtp_join: the last step towards the MTP layer's input: what the next token brings goes into every
// residual stream (spec/model.md 2.15 step 2).
//
//   streams[t, j, :] <- streams[t, j, :] + x[t, :]   for every stream j
//
// In f32, with one rounding. streams: [tokens, streams, dim], in place: h_proj of the normed
// streams. x: [tokens, dim], the same dtype: e_proj of the normed embedding.
#pragma once

#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

struct MtpJoinArgs {
  Act<2> x;
  Act<3> streams;
};

void MtpJoin(Context& k, const MtpJoinArgs& a);

namespace mtp_join {
inline bool CpuTakes(const MtpJoinArgs& a) {  // bf16, dim % 16 == 0
  return !a.x.exact() && a.x.shape[1] % 16 == 0;
}
void Cpu(Context& k, const MtpJoinArgs& a);
inline bool CudaTakes(const MtpJoinArgs& a) { return !a.x.exact(); }
void Cuda(Context& k, const MtpJoinArgs& a);
void Ref(Context& k, const MtpJoinArgs& a);
}  // namespace mtp_join

}  // namespace seacliff
