// CUDA row of grouped_linear: the product of linear, once for each group.
#include "kernels/common/matmul.cuh"
#include "kernels/grouped_linear/op.h"

namespace seacliff::grouped_linear {

void Cuda(Context& k, const GroupedLinearArgs& a) {
  const int64_t groups = a.x.shape[1], cols = a.x.shape[2], rank = a.out.shape[2];
  cuda::Product p;
  p.w = a.w;
  p.groups = groups;
  p.x = static_cast<const Bf16*>(a.x.data);
  p.x_stride = groups * cols;
  p.x_step = cols;
  p.tokens = a.x.shape[0];
  p.out = a.out.data;
  p.out_stride = groups * rank;
  p.out_step = rank;
  p.f32 = a.out.exact();
  p.quantise = a.quantise;
  cuda::Multiply(k, "grouped_linear", p);
}

}  // namespace seacliff::grouped_linear
