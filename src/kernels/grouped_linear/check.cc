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
  DType dtype = DType::kBf16;
  bool real = false;
};

constexpr Shape kShapes[] = {
    {"fp8", 4, 4, 128, 256, WeightFormat::kFp8},
    {"fp8, exact", 3, 2, 128, 256, WeightFormat::kFp8, DType::kF32},
    {"fp8, ranks of half a block", 3, 3, 64, 128, WeightFormat::kFp8},
    {"bf16", 3, 3, 10, 96, WeightFormat::kBf16},
    {"f32, exact", 2, 5, 3, 33, WeightFormat::kF32, DType::kF32},
    {"one group", 2, 1, 128, 128, WeightFormat::kFp8},
    {"many tokens", 19, 2, 64, 160, WeightFormat::kFp8},
    {"blocks astride groups, 1,100 tokens", 1100, 2, 300, 144, WeightFormat::kFp8},
    {"bf16, many tokens", 40, 2, 24, 136, WeightFormat::kBf16},
    {"no tokens", 0, 2, 128, 128, WeightFormat::kFp8},
    {"flash wo_a, 1 token", 1, 8, 1024, 4096, WeightFormat::kFp8, DType::kBf16, true},
    {"flash wo_a, 16 tokens", 16, 8, 1024, 4096, WeightFormat::kFp8, DType::kBf16, true},
    {"pro wo_a, 1 token", 1, 16, 1024, 4096, WeightFormat::kFp8, DType::kBf16, true},
};

void CheckShape(Checker& c, const Shape& s, WeightLayout layout) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory;
  const auto x = memory.Activations<3>("x", s.dtype, {s.tokens, s.groups, s.cols}, Access::kRead,
                                       [&](int64_t) { return random.Normal(); });
  const Matrix stored = memory.Weights("stored", s.w, s.groups * s.rank, s.cols, random);
  if (layout == WeightLayout::kTiles && !CanPack(stored)) return;
  const Matrix w = layout == WeightLayout::kTiles ? memory.Packed("w", stored) : stored;
  const auto out =
      memory.Activations<3>("out", s.dtype, {s.tokens, s.groups, s.rank}, Access::kWrite);

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    return GroupedLinearArgs{at(x).Rows(begin, count), at(w), at(out).Rows(begin, count)};
  };
  Case k;
  k.name = s.name;
  if (layout == WeightLayout::kTiles) k.name += ", packed";
  k.parts = s.tokens;
  k.read = [=](const Place& at) { return Loaded(at(out)); };
  k.expect = [=](Allowance a) {
    Expect y(static_cast<size_t>(out.size()));
    const Expect all = Values(x, 0, x.size());
    for (int64_t row = 0; row < w.rows; ++row) {
      const int64_t g = row / s.rank;
      const std::vector<double> weights = WeightRow(stored, row);
      for (int64_t t = 0; t < s.tokens; ++t) {
        DotProduct dot;
        for (int64_t i = 0; i < s.cols; ++i) {
          dot.Add(all[(t * s.groups + g) * s.cols + i], weights[i]);
        }
        const int64_t n = row - g * s.rank;
        y[(t * s.groups + g) * s.rank + n] = Round(dot.Total(a), s.dtype);
      }
    }
    return y;
  };
  k.cost.bytes = WeightBytes(stored) + (x.size() + out.size()) * SizeOf(s.dtype);
  k.cost.flops = 2 * s.tokens * w.rows * s.cols;
  k.real = s.real;
  c.Run<GroupedLinearArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) {
    if (s.real && !c.full()) continue;
    if (!s.real || c.on_device()) CheckShape(c, s, WeightLayout::kRowMajor);
    if (!c.on_device()) CheckShape(c, s, WeightLayout::kTiles);
  }
}

}  // namespace seacliff::grouped_linear
