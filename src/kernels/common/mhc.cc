// The shared pieces of mhc_boundary and mhc_head.
#include "kernels/common/mhc.h"

#include <cmath>

#include "kernels/common/codec.h"

namespace seacliff {

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

std::vector<float> DecodeAll(const Matrix& m) {
  std::vector<float> rows(static_cast<size_t>(m.rows * m.cols));
  for (int64_t r = 0; r < m.rows; ++r) DecodeRow(m, r, rows.data() + r * m.cols);
  return rows;
}

void MhcPost(const Act<2>& y, const Act<3>& streams, const View<const float, 2>& mix, int64_t t) {
  const int64_t count = streams.shape[1], dim = streams.shape[2];
  std::vector<float> before(static_cast<size_t>(count));
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      before[static_cast<size_t>(j)] = streams.Load((t * count + j) * dim + i);
    }
    for (int64_t k = 0; k < count; ++k) {
      float v = 0;
      for (int64_t j = 0; j < count; ++j) {
        v += mix(t, count + j * count + k) * before[static_cast<size_t>(j)];
      }
      streams.Store((t * count + k) * dim + i, mix(t, k) * y.Load(t * dim + i) + v);
    }
  }
}

void MhcMix(const Act<3>& streams, const std::vector<float>& fn, int64_t rows, double eps,
            int64_t t, float* m) {
  const int64_t width = streams.shape[1] * streams.shape[2];
  std::vector<float> x(static_cast<size_t>(width));
  double square = 0;
  for (int64_t i = 0; i < width; ++i) {
    const float v = streams.Load(t * width + i);
    x[static_cast<size_t>(i)] = v;
    square += static_cast<double>(v) * v;
  }
  const auto mean = static_cast<float>(square / static_cast<double>(width));
  const auto norm =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(mean + static_cast<float>(eps))));
  for (int64_t r = 0; r < rows; ++r) {
    m[r] = static_cast<float>(Dot(x.data(), fn.data() + r * width, width)) * norm;
  }
}

void MhcCollapse(const Act<3>& streams, const float* weight, int64_t t, float* out) {
  const int64_t count = streams.shape[1], dim = streams.shape[2];
  for (int64_t i = 0; i < dim; ++i) {
    float v = 0;
    for (int64_t j = 0; j < count; ++j) {
      v += weight[j] * streams.Load((t * count + j) * dim + i);
    }
    out[i] = v;
  }
}

}  // namespace seacliff
