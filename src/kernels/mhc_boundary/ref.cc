// Reference row of mhc_boundary.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/mhc.h"
#include "kernels/mhc_boundary/op.h"
#include "kernels/rms_norm/op.h"

namespace seacliff::mhc_boundary {
namespace {

// c: [n, n], row by row.
void Sinkhorn(std::vector<float>& c, size_t n, float eps, int64_t iters) {
  for (size_t j = 0; j < n; ++j) {
    float* row = c.data() + j * n;
    const float top = *std::max_element(row, row + n);
    float sum = 0;
    for (size_t k = 0; k < n; ++k) sum += row[k] = std::exp(row[k] - top);
    for (size_t k = 0; k < n; ++k) row[k] = row[k] / sum + eps;
  }
  for (int64_t i = 0; i < iters; ++i) {
    for (size_t j = 0; i > 0 && j < n; ++j) {
      float sum = 0;
      for (size_t k = 0; k < n; ++k) sum += c[j * n + k];
      for (size_t k = 0; k < n; ++k) c[j * n + k] /= sum + eps;
    }
    for (size_t k = 0; k < n; ++k) {
      float sum = 0;
      for (size_t j = 0; j < n; ++j) sum += c[j * n + k];
      for (size_t j = 0; j < n; ++j) c[j * n + k] /= sum + eps;
    }
  }
}

}  // namespace

void Ref(Context& k, const MhcBoundaryArgs& a) {
  const int64_t tokens = a.streams.shape[0], dim = a.streams.shape[2];
  const auto n = static_cast<size_t>(a.streams.shape[1]);
  const std::vector<float> fn = DecodeAll(a.hc.fn);
  k.pool().For(tokens, 4, [&](int64_t begin, int64_t end) {
    std::vector<float> m(2 * n + n * n), pre(n), c(n * n);
    std::vector<float> x(static_cast<size_t>(dim));
    for (int64_t t = begin; t < end; ++t) {
      if (a.y) MhcPost(a.y, a.streams, a.mix, t);
      MhcMix(a.streams, fn, a.hc.fn.rows, a.norm_eps, t, m.data());
      const auto value = [&](size_t i, int64_t s) {
        return m[i] * a.hc.scale(s) + a.hc.base(static_cast<int64_t>(i));
      };
      for (size_t j = 0; j < n; ++j) {
        pre[j] = Sigmoid(value(j, 0)) + a.hc_eps;
        a.mix(t, j) = 2.0f * Sigmoid(value(n + j, 1));
      }
      for (size_t i = 0; i < n * n; ++i) c[i] = value(2 * n + i, 2);
      Sinkhorn(c, n, a.hc_eps, a.iters);
      for (size_t i = 0; i < n * n; ++i) a.mix(t, n + i) = c[i];
      MhcCollapse(a.streams, pre.data(), t, x.data());
      for (int64_t i = 0; i < dim; ++i) a.x.Store(t * dim + i, x[static_cast<size_t>(i)]);
      rms_norm::Ref(k, {a.x.Rows(t, 1), a.weight, a.norm_eps, a.x.Rows(t, 1)});
    }
  });
}

}  // namespace seacliff::mhc_boundary
