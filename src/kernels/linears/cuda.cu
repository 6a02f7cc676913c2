// CUDA row of linears: one launch for all matrices.
#include "kernels/common/matmul_few.cuh"
#include "kernels/linears/op.h"

namespace seacliff::linears {

static_assert(kCudaTokens == cuda::kFewMostTokens);

void Cuda(Context& k, const LinearsArgs& a) {
  cuda::FewPart parts[cuda::kFewMostParts];
  for (size_t i = 0; i < a.count; ++i) {
    const LinearsArgs::Part& from = a.all[i];
    parts[i] = {from.w,       0, from.w.rows, from.out.data, from.w.rows, from.out.exact(),
                from.quantise};
  }
  cuda::MultiplyFew(
      k, "linears",
      {{parts, a.count}, static_cast<const Bf16*>(a.x.data), a.x.shape[1], 0, a.x.shape[0]});
}

}  // namespace seacliff::linears
