// Cases, expectation and cost of embed.
#include <algorithm>

#include "kernels/check_table.h"
#include "kernels/embed/op.h"

namespace seacliff::embed {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, vocab, streams, dim;
  WeightFormat table;
  DType dtype;
  bool real = false;
  int64_t first = 0;  // as many ids before the table's and after them are asked for too
};

constexpr Shape kShapes[] = {
    {"bf16", 5, 40, 4, 256, WeightFormat::kBf16, DType::kBf16},
    {"exact", 5, 40, 4, 256, WeightFormat::kF32, DType::kF32},
    {"f32 table, bf16 streams", 3, 9, 4, 64, WeightFormat::kF32, DType::kBf16},
    {"bf16 table, f32 streams", 3, 9, 4, 64, WeightFormat::kBf16, DType::kF32},
    {"one stream, odd dim", 7, 3, 1, 33, WeightFormat::kBf16, DType::kBf16},
    {"no tokens", 0, 3, 4, 64, WeightFormat::kBf16, DType::kBf16},
    {"tiny", 9, 12, 4, 128, WeightFormat::kBf16, DType::kBf16},
    {"part of the vocabulary", 40, 12, 4, 128, WeightFormat::kBf16, DType::kBf16, false, 24},
    {"part of it, exact", 40, 12, 2, 40, WeightFormat::kBf16, DType::kF32, false, 5},
    {"part of it, f32 table", 40, 12, 4, 64, WeightFormat::kF32, DType::kBf16, false, 12},
};

// `tokens` is how many there are at most; the table grows with them (RealVocab).
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 129280, 4, 4096, WeightFormat::kBf16, DType::kBf16},
    {"pro", 1, 129280, 4, 7168, WeightFormat::kBf16, DType::kBf16},
};

// Rows enough that tokens seldom share one; a table in full size would leave no room for copies.
int64_t RealVocab(const Shape& s) {
  return std::min(s.vocab, std::max<int64_t>(64, 16 * s.tokens));
}

void CheckShape(Checker& c, Shape s, const std::string& name) {
  if (!c.Wants(name, s.real)) return;
  if (s.real) s.vocab = RealVocab(s);
  Random random = c.NewRandom(name);
  CheckMemory memory(&c.pool());
  // The first and the last row are asked for, others at random, and twice.
  const auto ids = memory.Array<int32_t, 1>("ids", {s.tokens}, Access::kRead, [&](int64_t t) {
    const int64_t last = s.first + s.vocab - 1;
    return t == 0   ? last
           : t == 1 ? s.first
           : t == 2 ? last
           : t == 3 ? (s.first == 0 ? 0 : last + 1)
                    : random.Below(s.vocab + 2 * s.first);
  });
  const Matrix table = memory.Weights("table", s.table, s.vocab, s.dim, random);
  // No other row may be read.
  for (int64_t row = 0; row < s.vocab && !s.real; ++row) {
    if (std::find(ids.data, ids.data + s.tokens, s.first + row) == ids.data + s.tokens) {
      auto* bytes = static_cast<char*>(const_cast<void*>(table.data)) + row * table.row_bytes();
      std::memset(bytes, 0xff, static_cast<size_t>(table.row_bytes()));
    }
  }
  const auto streams =
      memory.Activations<3>("streams", s.dtype, {s.tokens, s.streams, s.dim}, Access::kWrite);
  const auto args = [=](const Place& at, int64_t part) {
    if (part == kWhole) return EmbedArgs{at(ids), at(table), at(streams), s.first};
    View<const int32_t, 1> id = at(ids);
    id.data += part;
    id.shape[0] = 1;
    return EmbedArgs{id, at(table), at(streams).Rows(part, 1), s.first};
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) Append(all, Loaded(at(streams).Rows(t, 1)));
    return all;
  };
  k.expect = [=](Allowance) {
    Expect out;
    for (int64_t t : tokens) {
      const int64_t at = ids(t) - s.first;
      const std::vector<double> row = at >= 0 && at < s.vocab
                                          ? WeightRow(table, at)
                                          : std::vector<double>(static_cast<size_t>(s.dim), 0.0);
      for (int64_t j = 0; j < s.streams; ++j) {
        for (double v : row) {
          const double rounded = s.dtype == DType::kBf16 ? ToGrid(v, 8, -126) : v;
          out.push_back({rounded, 0});
        }
      }
    }
    return out;
  };
  k.cost.bytes = s.tokens * (4 + table.row_bytes() + s.streams * s.dim * SizeOf(s.dtype));
  k.real = s.real;
  c.Run<EmbedArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckShape(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckShape(c, s, name); });
}

}  // namespace seacliff::embed
