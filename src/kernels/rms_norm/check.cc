// Cases, expectation and cost of rms_norm.
#include "kernels/check_table.h"
#include "kernels/fused/check_parts.h"
#include "kernels/rms_norm/op.h"

namespace seacliff::rms_norm {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, dim;
  DType dtype;
  double magnitude = 1;
  bool in_place = false, real = false;
};

constexpr float kEps = 1e-6f;

constexpr Shape kShapes[] = {
    {"dim 4096", 3, 4096, DType::kBf16},
    {"dim 7168, in place", 2, 7168, DType::kBf16, 1, true},
    {"dim 512, exact", 4, 512, DType::kF32},
    {"dim 512, exact, in place", 4, 512, DType::kF32, 1, true},
    {"zeros", 2, 128, DType::kBf16, 0},
    {"squares below eps", 2, 128, DType::kBf16, 1e-5},
    {"squares below f32", 2, 128, DType::kF32, 1e-25},
    {"squares near the top of f32", 2, 64, DType::kBf16, 1e18},
    {"odd dim", 5, 33, DType::kBf16},
    {"dim 1", 3, 1, DType::kF32},
    {"no tokens", 0, 64, DType::kBf16},
    {"many short rows, in place", 67, 512, DType::kBf16, 1, true},
    {"rows of one warp's size and more", 9, 1032, DType::kBf16},
};

// `tokens` is how many there are at most. Not in place, as calls that are timed repeat themselves.
constexpr Shape kReal[] = {
    {"flash dim", int64_t{1} << 40, 4096, DType::kBf16},
    {"flash query rank", int64_t{1} << 40, 1024, DType::kBf16},
    {"pro dim", 1, 7168, DType::kBf16},
};

Prepared<RmsNormArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const Access access = s.in_place ? Access::kWrite : Access::kRead;
  const auto x = memory.Normals<2>("x", s.dtype, {s.tokens, s.dim}, access, random, s.magnitude);
  const auto weight = memory.NormWeights(s.dim, random);
  const auto out = s.in_place ? x : memory.Activations<2>("out", s.dtype, x.shape, Access::kWrite);
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Expect in;
  for (int64_t t : tokens) Append(in, Values(x, t * s.dim, s.dim));

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    return RmsNormArgs{at(x).Rows(begin, count), at(weight), kEps, at(out).Rows(begin, count)};
  };
  Case k;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) Append(all, Loaded(at(out).Rows(t, 1)));
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all = in;
    for (size_t t = 0; t < tokens.size(); ++t) {
      RmsNorm(std::span<Approx>(all).subspan(t * s.dim, s.dim), weight, kEps, a);
    }
    Round(all, s.dtype);
    return all;
  };
  k.cost = {2 * x.size() * SizeOf(s.dtype) + s.dim * 2, 4 * x.size()};
  return {k, args};
}

}  // namespace

Prepared<RmsNormArgs> PreparePart(CheckMemory& memory, Random& random, const PartShape& s) {
  // Not in place where it is timed.
  return Prepare(memory, random, {"", s.tokens(), s.dim, DType::kBf16, 1, !s.real, s.real});
}

void Check(Checker& c) {
  for (const Shape& s : kShapes) c.Run(s, s.name, Prepare);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { c.Run(s, name, Prepare); });
}

}  // namespace seacliff::rms_norm
