// Reference row of index_query.
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/index_query/op.h"

namespace seacliff::index_query {

void Ref(Context& k, const IndexQueryArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  const int64_t pairs = a.frequencies.shape[0];
  const bool exact = a.q.exact();
  k.pool().For(tokens * heads, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> q(static_cast<size_t>(dim));
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < dim; ++i) q[static_cast<size_t>(i)] = a.q.Load(row * dim + i);
      Rotate(q.data() + dim - 2 * pairs, pairs, a.frequencies.data, a.positions(row / heads), 1);
      if (!exact) {
        for (float& v : q) v = RoundToBf16(v);
      }
      Hadamard(q.data(), dim);
      if (!exact) {
        for (float& v : q) v = RoundToBf16(v);
        RoundTripE2m1(q.data(), dim);
      }
      for (int64_t i = 0; i < dim; ++i) a.q.Store(row * dim + i, q[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace seacliff::index_query
