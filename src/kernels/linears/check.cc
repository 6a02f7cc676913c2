// Cases, expectation and cost of linears.
#include <vector>

#include "kernels/check_table.h"
#include "kernels/common/packing.h"
#include "kernels/linears/op.h"

namespace seacliff::linears {
namespace {

struct PartShape {
  int64_t rows;
  WeightFormat w;
  bool quantise;
  DType out = DType::kBf16;
};

struct Shape {
  const char* name;
  int64_t tokens, cols;
  std::vector<PartShape> parts;
  DType x = DType::kBf16;
  bool real = false;
};

constexpr auto kF32 = WeightFormat::kF32;
constexpr auto kBf16 = WeightFormat::kBf16;
constexpr auto kFp8 = WeightFormat::kFp8;
constexpr auto kMxfp4 = WeightFormat::kMxfp4;

const std::vector<Shape>& Shapes() {
  static const std::vector<Shape> shapes = {
      {"fp8 and bf16", 5, 512, {{256, kFp8, true}, {64, kBf16, false, DType::kF32}}},
      {"one", 3, 256, {{96, kFp8, true}}},
      {"none", 3, 256, {}},
      {"no tokens", 0, 256, {{96, kFp8, true}, {32, kBf16, false}}},
      {"eight, odd rows",
       2,
       384,
       {{16, kFp8, true},
        {37, kBf16, false, DType::kF32},
        {128, kFp8, false},
        {1, kBf16, false},
        {131, kFp8, true, DType::kF32},
        {48, kBf16, false},
        {5, kFp8, true},
        {64, kBf16, false}}},
      {"ragged blocks, 11 tokens", 11, 160, {{131, kFp8, true}, {24, kBf16, false}}},
      {"32 tokens", 32, 1152, {{144, kFp8, true}, {80, kBf16, false, DType::kF32}}},
      {"33 tokens", 33, 256, {{144, kFp8, true}, {80, kBf16, false, DType::kF32}}},
      {"200 tokens", 200, 128, {{128, kFp8, true}, {80, kBf16, false, DType::kF32}}},
      {"exact",
       3,
       256,
       {{96, kFp8, true, DType::kF32}, {32, kF32, false, DType::kF32}},
       DType::kF32},
      {"mxfp4 among them", 3, 256, {{64, kMxfp4, true}, {64, kFp8, true}}},
      {"quantised for bf16", 3, 256, {{64, kBf16, true}, {64, kFp8, true}}},
  };
  return shapes;
}

constexpr int64_t kMany = int64_t{1} << 40;

// What reads the input of Flash's attention.
const std::vector<Shape>& Real() {
  static const std::vector<Shape> shapes = {
      {"flash window", kMany, 4096, {{1024, kFp8, true}, {512, kFp8, true}}},
      {"flash ratio 128",
       kMany,
       4096,
       {{1024, kFp8, true},
        {512, kFp8, true},
        {512, kBf16, false, DType::kF32},
        {512, kBf16, false, DType::kF32}}},
      {"flash ratio 4",
       kMany,
       4096,
       {{1024, kFp8, true},
        {512, kFp8, true},
        {1024, kBf16, false, DType::kF32},
        {1024, kBf16, false, DType::kF32},
        {256, kBf16, false, DType::kF32},
        {256, kBf16, false, DType::kF32},
        {64, kBf16, false}}},
  };
  return shapes;
}

void CheckShape(Checker& c, const Shape& s, std::string name, WeightLayout layout) {
  const bool tiles = layout == WeightLayout::kTiles;
  Random random = c.NewRandom(name);
  if (tiles) name += ", packed";
  if (!c.Wants(name, s.real)) return;
  CheckMemory memory(&c.pool());
  // Now and then a large value, so that the scales of the groups differ.
  const auto value = [&](int64_t) {
    const double v = random.Normal();
    return random.Below(64) == 0 ? 16 * v : v;
  };
  const std::array<int64_t, 2> x_shape = {s.tokens, s.cols};
  const auto x = s.real ? memory.Normals<2>("x", s.x, x_shape, Access::kRead, random)
                        : memory.Activations<2>("x", s.x, x_shape, Access::kRead, value);
  std::vector<Matrix> stored;
  LinearsArgs all;
  all.x = x;
  for (const PartShape& part : s.parts) {
    stored.push_back(memory.Weights("stored", part.w, part.rows, s.cols, random));
    if (tiles && !CanPack(stored.back())) return;
    all.Add(tiles ? memory.Packed("w", stored.back()) : stored.back(), part.quantise,
            memory.Activations<2>("out", part.out, {s.tokens, part.rows}, Access::kWrite));
  }

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    LinearsArgs a;
    a.x = at(all.x).Rows(begin, count);
    for (const LinearsArgs::Part& p : all.parts()) {
      a.Add(at(p.w), p.quantise, at(p.out).Rows(begin, count));
    }
    return a;
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.alone = s.tokens <= kCudaTokens;
  k.read = [=](const Place& at) {
    std::vector<double> values;
    for (const LinearsArgs::Part& p : all.parts()) {
      for (int64_t t : tokens) Append(values, Loaded(at(p.out).Rows(t, 1)));
    }
    return values;
  };
  k.expect = [=, pool = &c.pool()](Allowance a) {
    Expect outs;
    for (size_t i = 0; i < s.parts.size(); ++i) {
      Expect in;
      for (int64_t t : tokens) Append(in, Values(x, t * s.cols, s.cols));
      const bool quantised = s.parts[i].quantise && s.x == DType::kBf16;
      for (size_t t = 0; t < tokens.size() && quantised; ++t) {
        QuantiseE4m3(std::span<Approx>(in).subspan(t * s.cols, s.cols), 128);
      }
      Expect y = MatMul(in, stored[i], a, quantised, pool);
      Round(y, s.parts[i].out);
      Append(outs, y);
    }
    return outs;
  };
  k.cost.bytes = x.size() * SizeOf(s.x);
  for (size_t i = 0; i < stored.size(); ++i) {
    k.cost.bytes += WeightBytes(stored[i]) + s.tokens * s.parts[i].rows * SizeOf(s.parts[i].out);
    k.cost.flops += 2 * s.tokens * s.parts[i].rows * s.cols;
  }
  k.warm = true;
  k.real = s.real;
  c.Run<LinearsArgs>(memory, k, args);
}

void CheckLayouts(Checker& c, const Shape& s, const std::string& name) {
  c.ForLayouts(s.real, [&](WeightLayout layout) { CheckShape(c, s, name, layout); });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : Shapes()) CheckLayouts(c, s, s.name);
  c.ForReal(Real(), [&](const Shape& s, const std::string& name) { CheckLayouts(c, s, name); });
}

}  // namespace seacliff::linears
