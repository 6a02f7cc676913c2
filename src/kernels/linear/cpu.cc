// cpu row of linear: packed weights, decoded on the way into the product.
#include "kernels/common/matmul.h"
#include "kernels/linear/op.h"

namespace seacliff::linear {

bool CpuTakes(const LinearArgs& a) { return !a.x.exact() && AllIn(WeightLayout::kTiles, a); }

void Cpu(Context& k, const LinearArgs& a) {
  thread_local MatMulInput x;
  const Segment all{0, a.x.shape[0]};
  for (size_t i = 0; i < a.size(); ++i) {
    const LinearArgs one = a[i];
    if (i == 0 || one.quantise != a[i - 1].quantise) {
      x.Prepare(k.pool(), a.x, one.quantise, {&all, 1});
    }
    MatMul(k.pool(), one.w, x, one.out);
  }
}

}  // namespace seacliff::linear
