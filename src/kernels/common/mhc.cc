// The shared pieces of mhc_boundary and mhc_head.
#include "kernels/common/mhc.h"

#include <cmath>

#include "kernels/common/codec.h"

namespace seacliff {

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

std::vector<float> DecodeAll(const Matrix& m) {
  std::vector<float> rows(static_cast<size_t>(m.rows * m.cols));
  for (int64_t r = 0; r < m.rows; ++r) DecodeRow(m, r, rows.data() + r * m.cols);
  return rows;
}

void MhcPost(const Act<2>& y, const Act<3>& streams, const View<const float, 2>& mix, int64_t t) {
  const int64_t count = streams.shape[1], dim = streams.shape[2];
  std::vector<double> before(static_cast<size_t>(count));
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      before[static_cast<size_t>(j)] = streams.Load((t * count + j) * dim + i);
    }
    for (int64_t k = 0; k < count; ++k) {
      double v = static_cast<double>(mix(t, k)) * y.Load(t * dim + i);
      for (int64_t j = 0; j < count; ++j) {
        v += static_cast<double>(mix(t, count + j * count + k)) * before[static_cast<size_t>(j)];
      }
      streams.Store((t * count + k) * dim + i, static_cast<float>(v));
    }
  }
}

void MhcMix(const Act<3>& streams, const std::vector<float>& fn, int64_t rows, double eps,
            int64_t t, double* m) {
  const int64_t width = streams.shape[1] * streams.shape[2];
  std::vector<float> x(static_cast<size_t>(width));
  double square = 0;
  for (int64_t i = 0; i < width; ++i) {
    const float v = streams.Load(t * width + i);
    x[static_cast<size_t>(i)] = v;
    square += static_cast<double>(v) * v;
  }
  const double norm = 1.0 / std::sqrt(square / static_cast<double>(width) + eps);
  for (int64_t r = 0; r < rows; ++r) m[r] = Dot(x.data(), fn.data() + r * width, width) * norm;
}

void MhcCollapse(const Act<3>& streams, const double* weight, int64_t t, float* out) {
  const int64_t count = streams.shape[1], dim = streams.shape[2];
  for (int64_t i = 0; i < dim; ++i) {
    double v = 0;
    for (int64_t j = 0; j < count; ++j) {
      v += weight[j] * streams.Load((t * count + j) * dim + i);
    }
    out[i] = static_cast<float>(v);
  }
}

}  // namespace seacliff
