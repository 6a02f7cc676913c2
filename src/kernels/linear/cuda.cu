// CUDA row of linear: weights are decoded on the way into the tensor cores.
#include "kernels/common/matmul.cuh"
#include "kernels/linear/op.h"

namespace seacliff::linear {

void Cuda(Context& k, const LinearArgs& a) {
  cuda::Product p;
  p.w = a.w;
  p.x = static_cast<const Bf16*>(a.x.data);
  p.x_stride = a.w.cols;
  p.tokens = a.x.shape[0];
  p.out = a.out.data;
  p.out_stride = a.w.rows;
  p.f32 = a.out.exact();
  p.quantise = a.quantise;
  cuda::Multiply(k, "linear", p);
}

}  // namespace seacliff::linear
