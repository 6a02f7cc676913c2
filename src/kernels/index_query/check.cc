// Cases, expectation and cost of index_query.
#include "kernels/check_table.h"
#include "kernels/fused/check_parts.h"
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
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash and pro", int64_t{1} << 40, 64, 128, DType::kBf16, 65535},
};

Prepared<IndexQueryArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const auto q = memory.Normals<3>("q", s.dtype, {s.tokens, s.heads, s.dim}, Access::kWrite, random,
                                   s.magnitude);
  const auto positions = memory.Array<int32_t, 1>("positions", {s.tokens}, Access::kRead,
                                                  [&](int64_t t) { return s.first_position + t; });
  const auto frequencies = memory.Frequencies(160000);
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Expect in;
  for (int64_t t : tokens) Append(in, Values(q, t * s.heads * s.dim, s.heads * s.dim));

  const auto args = [=](const Place& at, int64_t part) {
    if (part == kWhole) return IndexQueryArgs{at(q), at(positions), at(frequencies)};
    View<const int32_t, 1> position = at(positions);
    position.data += part;
    position.shape[0] = 1;
    return IndexQueryArgs{at(q).Rows(part, 1), position, at(frequencies)};
  };
  Case k;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) Append(all, Loaded(at(q).Rows(t, 1)));
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all;
    for (int64_t row = 0; row < static_cast<int64_t>(tokens.size()) * s.heads; ++row) {
      Expect head(in.begin() + row * s.dim, in.begin() + (row + 1) * s.dim);
      RotateLast(head, frequencies, positions(tokens[row / s.heads]), 1, a);
      Round(head, s.dtype);
      HadamardTransform(head);
      Round(head, s.dtype);
      if (s.dtype == DType::kBf16) QuantiseE2m1(head);
      Append(all, head);
    }
    return all;
  };
  k.cost = {2 * q.size() * SizeOf(s.dtype), 10 * q.size()};
  return {k, args};
}

}  // namespace

Prepared<IndexQueryArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s) {
  return Prepare(
      memory, random,
      {"", s.tokens(), s.heads, s.dim, DType::kBf16, s.sequences.front().first, 1, s.real});
}

void Check(Checker& c) {
  for (const Shape& s : kShapes) c.Run(s, s.name, Prepare);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { c.Run(s, name, Prepare); });
}

}  // namespace seacliff::index_query
