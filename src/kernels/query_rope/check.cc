// Cases, expectation and cost of query_rope.
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/fused/check_parts.h"
#include "kernels/query_rope/op.h"

namespace seacliff::query_rope {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, heads, head_dim;
  DType dtype;
  int64_t first_position;
  double magnitude = 1;
  bool real = false;
};

constexpr float kEps = 1e-6f;

constexpr Shape kShapes[] = {
    {"head_dim 512", 3, 4, 512, DType::kBf16, 0},
    {"head_dim 512, exact", 3, 4, 512, DType::kF32, 0},
    {"head_dim 128, far", 3, 3, 128, DType::kBf16, 1048573},
    {"all dims rotated, far, exact", 3, 2, 64, DType::kF32, 1048573},
    {"zeros", 2, 2, 128, DType::kBf16, 5, 0},
    {"near eps", 2, 2, 128, DType::kBf16, 5, 1e-3},
    // Each of the official roundings shows in some head of many.
    {"many heads", 2, 400, 64, DType::kBf16, 0},
    {"many heads, near eps", 2, 400, 64, DType::kBf16, 0, 1e-3},
    {"large", 2, 2, 128, DType::kBf16, 70000, 1e4},
    {"no tokens", 0, 2, 128, DType::kBf16, 0},
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 64, 512, DType::kBf16, 65535},
    {"pro", 1, 128, 512, DType::kBf16, 100000},
};

Approx Add(Approx x, double y) { return {x.value + y, x.slack}; }

// The inverse root of the mean square, with each of the official roundings.
Approx Norm(const Expect& q, DType dtype, Allowance a) {
  Approx sum;
  for (const Approx& v : q) {
    const Approx square = RoundOrNot({v.value * v.value, 0}, dtype, a);
    sum.value += square.value;
    sum.slack += square.slack;
  }
  const auto n = static_cast<double>(q.size());
  sum.slack += a.Sum(static_cast<int64_t>(q.size())) * sum.value;
  const Approx mean = RoundOrNot({sum.value / n, sum.slack / n}, dtype, a);
  const Approx shifted = RoundOrNot(Add(mean, kEps), dtype, a);
  const double root = 1 / std::sqrt(shifted.value);
  const double relative = 0.5 * shifted.slack / (shifted.value - shifted.slack) + a.Step();
  return RoundOrNot({root, root * relative}, dtype, a);
}

Prepared<QueryRopeArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const auto q = memory.Normals<3>("q", s.dtype, {s.tokens, s.heads, s.head_dim}, Access::kWrite,
                                   random, s.magnitude);
  const auto positions = memory.Array<int32_t, 1>("positions", {s.tokens}, Access::kRead,
                                                  [&](int64_t t) { return s.first_position + t; });
  const auto frequencies = memory.Frequencies(10000);
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Expect in;
  for (int64_t t : tokens) Append(in, Values(q, t * s.heads * s.head_dim, s.heads * s.head_dim));

  const auto args = [=](const Place& at, int64_t part) {
    if (part == kWhole) return QueryRopeArgs{at(q), at(positions), at(frequencies), kEps};
    View<const int32_t, 1> position = at(positions);
    position.data += part;
    position.shape[0] = 1;
    return QueryRopeArgs{at(q).Rows(part, 1), position, at(frequencies), kEps};
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
      Expect head(in.begin() + row * s.head_dim, in.begin() + (row + 1) * s.head_dim);
      const Approx norm = Norm(head, s.dtype, a);
      for (Approx& v : head) {
        v.slack = std::fabs(v.value) * (norm.slack + norm.value * a.Step());
        v.value *= norm.value;
      }
      Round(head, s.dtype);
      RotateLast(head, frequencies, positions(tokens[row / s.heads]), 1, a);
      Round(head, s.dtype);
      Append(all, head);
    }
    return all;
  };
  k.cost = {2 * q.size() * SizeOf(s.dtype), 4 * q.size()};
  return {k, args};
}

}  // namespace

Prepared<QueryRopeArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s) {
  return Prepare(
      memory, random,
      {"", s.tokens(), s.heads, s.dim, DType::kBf16, s.sequences.front().first, 1, s.real});
}

void Check(Checker& c) {
  for (const Shape& s : kShapes) c.Run(s, s.name, Prepare);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { c.Run(s, name, Prepare); });
}

}  // namespace seacliff::query_rope
