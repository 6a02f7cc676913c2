// Reference row of grouped_linear.
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/grouped_linear/op.h"

namespace seacliff::grouped_linear {

void Ref(Context& k, const GroupedLinearArgs& a) {
  const int64_t tokens = a.x.shape[0], groups = a.x.shape[1], cols = a.x.shape[2];
  const int64_t rank = a.out.shape[2];
  const bool quantised = a.quantise && !a.x.exact();
  const int64_t block = a.w.format == WeightFormat::kMxfp4 ? 32 : 128;
  std::vector<float> x(static_cast<size_t>(a.x.size()));
  for (int64_t i = 0; i < a.x.size(); ++i) x[static_cast<size_t>(i)] = a.x.Load(i);
  for (int64_t row = 0; row < tokens * groups && quantised; ++row) {
    RoundTripE4m3(x.data() + row * cols, cols, 128);
  }
  k.pool().For(groups * rank, 32, [&](int64_t begin, int64_t end) {
    std::vector<float> w(static_cast<size_t>(cols));
    for (int64_t row = begin; row < end; ++row) {
      DecodeRow(a.w, row, w.data());
      const int64_t g = row / rank;
      for (int64_t t = 0; t < tokens; ++t) {
        const float* of_group = x.data() + (t * groups + g) * cols;
        a.out.Store(t * groups * rank + row,
                    quantised ? BlockedDot(of_group, w.data(), cols, block)
                              : static_cast<float>(Dot(of_group, w.data(), cols)));
      }
    }
  });
}

}  // namespace seacliff::grouped_linear
