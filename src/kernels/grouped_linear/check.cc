// Cases, expectation and cost of grouped_linear.
#include "kernels/check_table.h"
#include "kernels/common/packing.h"
#include "kernels/grouped_linear/op.h"

namespace seacliff::grouped_linear {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, groups, rank, cols;
  WeightFormat w;
  bool quantise = false;
  DType dtype = DType::kBf16;
  bool real = false;
  // One value in the first 128 columns of each group is so large that the others are subnormal
  // beside it, which other blocks would show.
  bool outliers = false;
};

constexpr auto kF32 = WeightFormat::kF32;
constexpr auto kBf16 = WeightFormat::kBf16;
constexpr auto kFp8 = WeightFormat::kFp8;
constexpr auto kMxfp4 = WeightFormat::kMxfp4;

constexpr Shape kShapes[] = {
    {"fp8", 4, 4, 128, 256, kFp8},
    {"fp8, exact", 3, 2, 128, 256, kFp8, false, DType::kF32},
    {"fp8, ranks of half a block", 3, 3, 64, 128, kFp8},
    {"bf16", 3, 3, 10, 96, kBf16},
    {"f32, exact", 2, 5, 3, 33, kF32, false, DType::kF32},
    {"one group", 2, 1, 128, 128, kFp8},
    {"many tokens", 19, 2, 64, 160, kFp8},
    {"blocks astride groups, 1,100 tokens", 1100, 2, 300, 144, kFp8},
    {"bf16, many tokens", 40, 2, 24, 136, kBf16},
    {"no tokens", 0, 2, 128, 128, kFp8},
    {"fp8, quantised", 4, 4, 128, 256, kFp8, true},
    {"fp8, quantised, exact", 3, 2, 128, 256, kFp8, true, DType::kF32},
    {"fp8, quantised, many tokens", 19, 3, 64, 256, kFp8, true},
    {"fp8, quantised, ragged blocks, 1,100 tokens", 1100, 2, 300, 144, kFp8, true},
    {"quantised, odd columns", 3, 3, 10, 131, kBf16, true},
    {"bf16, quantised", 5, 2, 64, 160, kBf16, true},
    {"mxfp4, quantised", 5, 2, 64, 160, kMxfp4, true},
    {"outliers", 3, 3, 64, 256, kFp8, true, DType::kBf16, false, true},
    {"outliers, ragged blocks", 3, 3, 64, 160, kFp8, true, DType::kBf16, false, true},
    {"quantised, no tokens", 0, 2, 128, 128, kFp8, true},
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash wo_a", int64_t{1} << 40, 8, 1024, 4096, kFp8},
    {"flash wo_a, quantised", int64_t{1} << 40, 8, 1024, 4096, kFp8, true},
    {"pro wo_a", 8, 16, 1024, 4096, kFp8},
};

void CheckShape(Checker& c, const Shape& s, std::string name, WeightLayout layout) {
  const bool tiles = layout == WeightLayout::kTiles;
  Random random = c.NewRandom(name);
  if (tiles) name += ", packed";
  if (!c.Wants(name, s.real)) return;
  CheckMemory memory(&c.pool());
  // Now and then a large value, so that the scales of the blocks differ.
  const auto value = [&](int64_t i) {
    const double v = random.Normal();
    if (s.outliers) return i % s.cols == 5 ? 0x1p16 : v;
    return random.Below(64) == 0 ? 16 * v : v;
  };
  const std::array<int64_t, 3> x_shape = {s.tokens, s.groups, s.cols};
  const auto x = s.real ? memory.Normals<3>("x", s.dtype, x_shape, Access::kRead, random)
                        : memory.Activations<3>("x", s.dtype, x_shape, Access::kRead, value);
  const Matrix stored = memory.Weights("stored", s.w, s.groups * s.rank, s.cols, random);
  if (tiles && !CanPack(stored)) return;
  const Matrix w = tiles ? memory.Packed("w", stored) : stored;
  const auto out =
      memory.Activations<3>("out", s.dtype, {s.tokens, s.groups, s.rank}, Access::kWrite);

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    return GroupedLinearArgs{at(x).Rows(begin, count), at(w), s.quantise,
                             at(out).Rows(begin, count)};
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) Append(all, Loaded(at(out).Rows(t, 1)));
    return all;
  };
  k.expect = [=, pool = &c.pool()](Allowance a) {
    const bool quantised = s.quantise && s.dtype == DType::kBf16;
    const int64_t width = s.groups * s.rank;
    Expect y(tokens.size() * static_cast<size_t>(width));
    Expect in;
    for (int64_t t : tokens) Append(in, Values(x, t * s.groups * s.cols, s.groups * s.cols));
    for (size_t i = 0; i < in.size() && quantised; i += static_cast<size_t>(s.cols)) {
      QuantiseE4m3(std::span<Approx>(in).subspan(i, static_cast<size_t>(s.cols)), 128);
    }
    pool->For(width, 64, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const std::vector<double> weights = WeightRow(stored, row);
        for (size_t t = 0; t < tokens.size(); ++t) {
          const Approx* group = in.data() + (t * s.groups + row / s.rank) * s.cols;
          DotProduct dot;
          for (int64_t i = 0; i < s.cols; ++i) dot.Add(group[i], weights[i]);
          y[t * width + row] = Round(dot.Total(a, quantised), s.dtype);
        }
      }
    });
    return y;
  };
  k.cost.bytes = WeightBytes(stored) + (x.size() + out.size()) * SizeOf(s.dtype);
  k.cost.flops = 2 * s.tokens * w.rows * s.cols;
  k.warm = true;
  k.real = s.real;
  c.Run<GroupedLinearArgs>(memory, k, args);
}

void CheckLayouts(Checker& c, const Shape& s, const std::string& name) {
  c.ForLayouts(s.real, [&](WeightLayout layout) { CheckShape(c, s, name, layout); });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckLayouts(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckLayouts(c, s, name); });
}

}  // namespace seacliff::grouped_linear
