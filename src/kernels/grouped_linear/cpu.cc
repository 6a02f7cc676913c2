// cpu row of grouped_linear: packed weights, decoded on the way into the product.
#include <vector>

#include "kernels/common/matmul.h"
#include "kernels/grouped_linear/op.h"

namespace seacliff::grouped_linear {

bool CpuTakes(const GroupedLinearArgs& a) {
  return a.w.layout == WeightLayout::kTiles && !a.x.exact() && a.out.shape[2] % kTileRows == 0;
}

void Cpu(Context& k, const GroupedLinearArgs& a) {
  const int64_t tokens = a.x.shape[0], groups = a.x.shape[1];
  // All tokens of a group meet the same weights.
  std::vector<Segment> segments;
  std::vector<int32_t> order;
  for (int64_t g = 0; g < groups; ++g) {
    segments.push_back({g * tokens, tokens});
    for (int64_t t = 0; t < tokens; ++t) order.push_back(static_cast<int32_t>(t * groups + g));
  }
  thread_local MatMulInput x;
  x.Prepare(k.pool(), a.x.Reshape<2>({tokens * groups, a.x.shape[2]}), a.quantise, segments, order);
  MatMul(k.pool(), a.w, x, a.out.Reshape<2>({tokens, a.w.rows}));
}

}  // namespace seacliff::grouped_linear
