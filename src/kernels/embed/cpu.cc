// cpu row of embed: rows are copied as they are.
#include <cstring>

#include "kernels/embed/op.h"

namespace seacliff::embed {

bool CpuTakes(const EmbedArgs& a) {
  return !a.streams.exact() && a.table.format == WeightFormat::kBf16 &&
         a.table.layout == WeightLayout::kRowMajor;
}

void Cpu(Context& k, const EmbedArgs& a) {
  const int64_t streams = a.streams.shape[1], bytes = a.table.row_bytes();
  const auto* table = static_cast<const char*>(a.table.data);
  auto* out = static_cast<char*>(a.streams.data);
  k.pool().For(a.ids.shape[0], 8, [=, &a](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = a.ids(t) - a.first;
      char* const to = out + t * streams * bytes;
      if (row < 0 || row >= a.table.rows) {
        std::memset(to, 0, static_cast<size_t>(streams * bytes));
        continue;
      }
      for (int64_t j = 0; j < streams; ++j) {
        std::memcpy(to + j * bytes, table + row * bytes, static_cast<size_t>(bytes));
      }
    }
  });
}

}  // namespace seacliff::embed
