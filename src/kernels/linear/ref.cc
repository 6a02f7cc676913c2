// Reference row of linear.
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/linear/op.h"

namespace seacliff::linear {

void Ref(Context& k, const LinearArgs& a) {
  const int64_t tokens = a.x.shape[0], cols = a.w.cols, rows = a.w.rows;
  const bool quantised = a.quantise && !a.x.exact();
  const int64_t block = a.w.format == WeightFormat::kMxfp4 ? 32 : 128;
  std::vector<float> x(static_cast<size_t>(tokens * cols));
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = x.data() + t * cols;
    for (int64_t i = 0; i < cols; ++i) row[i] = a.x.Load(t * cols + i);
    if (quantised) RoundTripE4m3(row, cols, 128);
  }
  k.pool().For(rows, 32, [&](int64_t begin, int64_t end) {
    std::vector<float> w(static_cast<size_t>(cols));
    for (int64_t n = begin; n < end; ++n) {
      DecodeRow(a.w, n, w.data());
      for (int64_t t = 0; t < tokens; ++t) {
        const float* row = x.data() + t * cols;
        a.out.Store(t * rows + n, quantised ? BlockedDot(row, w.data(), cols, block)
                                            : static_cast<float>(Dot(row, w.data(), cols)));
      }
    }
  });
}

}  // namespace seacliff::linear
