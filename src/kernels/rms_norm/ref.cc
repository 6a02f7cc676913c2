// Reference row of rms_norm.
#include <cmath>

#include "kernels/rms_norm/op.h"

namespace seacliff::rms_norm {

void Ref(Context&, const RmsNormArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1];
  for (int64_t t = 0; t < tokens; ++t) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const double v = a.x.Load(t * dim + i);
      sum += v * v;
    }
    const auto mean = static_cast<float>(sum / static_cast<double>(dim));
    const auto norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(mean + a.eps)));
    for (int64_t i = 0; i < dim; ++i) {
      a.out.Store(t * dim + i, a.x.Load(t * dim + i) * norm * ToFloat(a.weight(i)));
    }
  }
}

}  // namespace seacliff::rms_norm
