// Reference row of embed.
#include <algorithm>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/embed/op.h"

namespace seacliff::embed {

void Ref(Context&, const EmbedArgs& a) {
  const int64_t streams = a.streams.shape[1], dim = a.streams.shape[2];
  std::vector<float> row(static_cast<size_t>(dim));
  for (int64_t t = 0; t < a.ids.shape[0]; ++t) {
    const int64_t at = a.ids(t) - a.first;
    if (at < 0 || at >= a.table.rows) {
      std::fill(row.begin(), row.end(), 0.0f);
    } else {
      DecodeRow(a.table, at, row.data());
    }
    for (int64_t j = 0; j < streams; ++j) {
      for (int64_t i = 0; i < dim; ++i) {
        a.streams.Store((t * streams + j) * dim + i, row[static_cast<size_t>(i)]);
      }
    }
  }
}

}  // namespace seacliff::embed
