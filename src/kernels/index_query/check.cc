// Cases, expectation and cost of index_query.
#include "kernels/check_table.h"
#include "kernels/index_query/op.h"

namespace seacliff::index_query {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, heads, dim;
  DType dtype;
  int64_t first_position;
  double magnitude = 1;
  bool real = false;
};

constexpr Shape kShapes[] = {
    {"dim 128", 3, 4, 128, DType::kBf16, 0},
    {"dim 128, exact", 3, 4, 128, DType::kF32, 0},
    {"dim 64, all rotated, far", 3, 3, 64, DType::kBf16, 1048573},
    {"dim 256, exact, far", 2, 2, 256, DType::kF32, 1048573},
    {"zeros", 2, 2, 128, DType::kBf16, 5, 0},
    {"tiny", 2, 2, 128, DType::kBf16, 5, 1e-30},
    {"large", 2, 2, 128, DType::kBf16, 70000, 1e20},
    {"many tokens, odd heads", 70, 9, 128, DType::kBf16, 1000},
    {"dim 256", 2, 3, 256, DType::kBf16, 300},
    {"no tokens", 0, 2, 128, DType::kBf16, 0},
    {"flash and pro, 1 token", 1, 64, 128, DType::kBf16, 65535, 1, true},
    {"flash and pro, 64 tokens", 64, 64, 128, DType::kBf16, 65535, 1, true},
};

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory;
  const auto q = memory.Activations<3>("q", s.dtype, {s.tokens, s.heads, s.dim}, Access::kWrite,
                                       [&](int64_t) { return s.magnitude * random.Normal(); });
  const auto positions = memory.Array<int32_t, 1>("positions", {s.tokens}, Access::kRead,
                                                  [&](int64_t t) { return s.first_position + t; });
  const auto frequencies = memory.Frequencies(160000);
  const Expect in = Values(q, 0, q.size());

  const auto args = [=](const Place& at, int64_t part) {
    if (part == kWhole) return IndexQueryArgs{at(q), at(positions), at(frequencies)};
    View<const int32_t, 1> position = at(positions);
    position.data += part;
    position.shape[0] = 1;
    return IndexQueryArgs{at(q).Rows(part, 1), position, at(frequencies)};
  };
  Case k;
  k.name = s.name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) { return Loaded(at(q)); };
  k.expect = [=](Allowance a) {
    Expect all;
    for (int64_t row = 0; row < s.tokens * s.heads; ++row) {
      Expect head(in.begin() + row * s.dim, in.begin() + (row + 1) * s.dim);
      RotateLast(head, frequencies, positions(row / s.heads), 1, a);
      Round(head, s.dtype);
      HadamardTransform(head);
      Round(head, s.dtype);
      if (s.dtype == DType::kBf16) QuantiseE2m1(head);
      Append(all, head);
    }
    return all;
  };
  k.cost = {2 * q.size() * SizeOf(s.dtype), 10 * q.size()};
  k.real = s.real;
  c.Run<IndexQueryArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) {
    if (!s.real || c.full()) CheckShape(c, s);
  }
}

}  // namespace seacliff::index_query
