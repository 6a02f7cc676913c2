// Reference row of query_rope.
#include <cmath>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/query_rope/op.h"

namespace seacliff::query_rope {

void Ref(Context& k, const QueryRopeArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  const int64_t pairs = a.frequencies.shape[0];
  const bool exact = a.q.exact();
  const auto round = [exact](double v) {
    const auto f = static_cast<float>(v);
    return exact ? f : RoundToBf16(f);
  };
  k.pool().For(tokens * heads, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> q(static_cast<size_t>(dim));
    for (int64_t row = begin; row < end; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < dim; ++i) {
        const double v = a.q.Load(row * dim + i);
        sum += exact ? v * v : round(v * v);
      }
      double norm = 0;
      if (exact) {
        norm = 1.0 / std::sqrt(sum / static_cast<double>(dim) + a.eps);
      } else {
        const float mean = round(sum / static_cast<double>(dim));
        norm = round(1.0 / std::sqrt(static_cast<double>(round(mean + a.eps))));
      }
      for (int64_t i = 0; i < dim; ++i) {
        q[static_cast<size_t>(i)] = round(a.q.Load(row * dim + i) * norm);
      }
      Rotate(q.data() + dim - 2 * pairs, pairs, a.frequencies.data, a.positions(row / heads), 1);
      for (int64_t i = 0; i < dim; ++i) a.q.Store(row * dim + i, q[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace seacliff::query_rope
