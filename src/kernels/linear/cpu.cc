// cpu row of linear: packed weights, decoded on the way into the product.
#include "kernels/common/matmul.h"
#include "kernels/linear/op.h"

namespace seacliff::linear {

bool CpuTakes(const LinearArgs& a) { return !a.x.exact() && a.w.layout == WeightLayout::kTiles; }

void Cpu(Context& k, const LinearArgs& a) {
  thread_local MatMulInput x;
  const Segment all{0, a.x.shape[0]};
  x.Prepare(k.pool(), a.x, a.quantise, {&all, 1});
  MatMul(k.pool(), a.w, x, a.out);
}

}  // namespace seacliff::linear
