// CUDA row of linear: weights are decoded on the way into the tensor cores.
#include <vector>

#include "kernels/common/matmul.cuh"
#include "kernels/linear/op.h"

namespace seacliff::linear {

void Cuda(Context& k, const LinearArgs& a) {
  std::vector<cuda::Product> products(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const LinearArgs one = a[i];
    cuda::Product& p = products[i];
    p.w = one.w;
    p.x = static_cast<const Bf16*>(one.x.data);
    p.x_stride = one.w.cols;
    p.tokens = one.x.shape[0];
    p.out = one.out.data;
    p.out_stride = one.w.rows;
    p.f32 = one.out.exact();
    p.quantise = one.quantise;
  }
  cuda::Multiply(k, "linear", products);
}

}  // namespace seacliff::linear
