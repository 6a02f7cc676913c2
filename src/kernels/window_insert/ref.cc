// Reference row of window_insert.
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/rms_norm/op.h"
#include "kernels/window_insert/op.h"

namespace seacliff::window_insert {

void Ref(Context& k, const WindowInsertArgs& a) {
  const int64_t tokens = a.kv.shape[0], dim = a.kv.shape[1];
  const int64_t pairs = a.frequencies.shape[0];
  std::vector<float> memory(static_cast<size_t>(dim));
  std::vector<float> v(static_cast<size_t>(dim));
  for (int64_t t = 0; t < tokens; ++t) {
    const Act<2> normed(memory.data(), a.kv.dtype, {1, dim});
    rms_norm::Ref(k, {a.kv.Rows(t, 1), a.weight, a.eps, normed});
    for (int64_t i = 0; i < dim; ++i) v[static_cast<size_t>(i)] = normed.Load(i);
    const int32_t position = a.batch.positions(t);
    Rotate(v.data() + dim - 2 * pairs, pairs, a.frequencies.data, position, 1);
    const int32_t page = a.batch.window_pages(a.batch.seq_of(t), position / kPageTokens);
    StoreEntry(a.window, page, position % kPageTokens, v.data());
  }
}

}  // namespace seacliff::window_insert
