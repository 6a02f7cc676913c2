// Reference row of mhc_head.
#include <vector>

#include "kernels/common/mhc.h"
#include "kernels/mhc_head/op.h"
#include "kernels/rms_norm/op.h"

namespace seacliff::mhc_head {

void Ref(Context& k, const MhcHeadArgs& a) {
  const int64_t n = a.streams.shape[1], dim = a.streams.shape[2];
  if (a.y) {
    for (int64_t t = 0; t < a.streams.shape[0]; ++t) MhcPost(a.y, a.streams, a.mix, t);
  }
  const std::vector<float> fn = DecodeAll(a.hc.fn);
  std::vector<float> weight(static_cast<size_t>(n));
  std::vector<float> x(static_cast<size_t>(dim));
  for (int64_t r = 0; r < a.rows.shape[0]; ++r) {
    MhcMix(a.streams, fn, n, a.norm_eps, a.rows(r), weight.data());
    for (int64_t j = 0; j < n; ++j) {
      float& w = weight[static_cast<size_t>(j)];
      w = Sigmoid(w * a.hc.scale(0) + a.hc.base(j)) + a.hc_eps;
    }
    MhcCollapse(a.streams, weight.data(), a.rows(r), x.data());
    for (int64_t i = 0; i < dim; ++i) a.x.Store(r * dim + i, x[static_cast<size_t>(i)]);
    rms_norm::Ref(k, {a.x.Rows(r, 1), a.weight, a.norm_eps, a.x.Rows(r, 1)});
  }
}

}  // namespace seacliff::mhc_head
