// Cases, expectation and cost of linear.
#include "kernels/check_table.h"
#include "kernels/common/packing.h"
#include "kernels/linear/op.h"

namespace seacliff::linear {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, rows, cols;
  WeightFormat w;
  bool quantise;
  DType x = DType::kBf16, out = DType::kBf16;
  double magnitude = 1;
  bool real = false;
  // One value of each 128 columns is so large that the others are subnormal beside it, which other
  // groups would show.
  bool outliers = false;
};

constexpr auto kF32 = WeightFormat::kF32;
constexpr auto kBf16 = WeightFormat::kBf16;
constexpr auto kFp8 = WeightFormat::kFp8;
constexpr auto kMxfp4 = WeightFormat::kMxfp4;

constexpr int64_t kMany = int64_t{1} << 40;

constexpr Shape kShapes[] = {
    {"fp8", 5, 256, 512, kFp8, true},
    {"fp8, f32 out", 3, 128, 256, kFp8, true, DType::kBf16, DType::kF32},
    {"fp8, not quantised", 3, 128, 256, kFp8, false},
    {"fp8, exact", 3, 128, 384, kFp8, true, DType::kF32, DType::kF32},
    {"fp8, ragged blocks", 3, 131, 160, kFp8, true},
    {"mxfp4", 5, 96, 512, kMxfp4, true},
    {"mxfp4, exact", 3, 64, 256, kMxfp4, true, DType::kF32, DType::kF32},
    {"mxfp4, one group", 2, 5, 32, kMxfp4, true},
    {"bf16, f32 out", 4, 64, 512, kBf16, false, DType::kBf16, DType::kF32},
    {"bf16", 4, 64, 512, kBf16, false},
    {"bf16, odd sizes", 3, 7, 33, kBf16, false, DType::kBf16, DType::kF32},
    {"f32, exact", 3, 17, 200, kF32, false, DType::kF32, DType::kF32},
    {"f32 of bf16", 3, 24, 1024, kF32, false, DType::kBf16, DType::kF32},
    {"zeros", 2, 128, 128, kFp8, true, DType::kBf16, DType::kBf16, 0},
    {"below the scale's floor", 2, 128, 128, kFp8, true, DType::kBf16, DType::kF32, 2e-9},
    {"large", 2, 128, 256, kFp8, true, DType::kBf16, DType::kBf16, 1e8},
    {"outliers", 3, 64, 512, kFp8, true, DType::kBf16, DType::kF32, 1, false, true},
    {"outliers, ragged", 3, 64, 160, kMxfp4, true, DType::kBf16, DType::kF32, 1, false, true},
    {"no tokens", 0, 64, 128, kFp8, true},
    {"fp8, many tokens", 23, 256, 384, kFp8, true},
    {"mxfp4, many tokens", 23, 192, 384, kMxfp4, true},
    {"bf16, many tokens", 23, 136, 416, kBf16, false, DType::kBf16, DType::kF32},
    {"fp8, 300 tokens", 300, 64, 64, kFp8, true},
    // Enough for the largest tiles of a device, and none of them full.
    {"fp8, 1,100 tokens", 1100, 900, 160, kFp8, true},
    {"fp8, 1,100 tokens, not quantised", 1100, 900, 144, kFp8, false, DType::kBf16, DType::kF32},
    {"mxfp4, 1,100 tokens", 1100, 900, 96, kMxfp4, true, DType::kBf16, DType::kF32},
    {"bf16, 1,100 tokens", 1100, 900, 72, kBf16, false},
    {"bf16, odd rows, 40 tokens", 40, 37, 136, kBf16, false},
    {"mxfp4, not quantised", 3, 40, 160, kMxfp4, false},
    {"one row", 3, 1, 128, kBf16, false},
    // Rows for one architecture start at 256 tokens and whole blocks of weights.
    {"fp8, 256 tokens, one tile", 256, 128, 128, kFp8, true, DType::kBf16, DType::kF32},
    {"fp8, 300 tokens, three blocks", 300, 256, 384, kFp8, true},
    {"fp8, 257 tokens, f32 out", 257, 128, 1152, kFp8, true, DType::kBf16, DType::kF32},
    {"fp8, 700 tokens, outliers", 700, 128, 256, kFp8, true, DType::kBf16, DType::kF32, 1, false,
     true},
    {"fp8, 257 tokens, many rows", 257, 4352, 128, kFp8, true},
};

// The models' matrices; `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash wq_a", kMany, 1024, 4096, kFp8, true},
    {"flash wkv", kMany, 512, 4096, kFp8, true},
    {"flash wq_b", kMany, 32768, 1024, kFp8, true},
    {"flash index wq_b", kMany, 8192, 1024, kFp8, true},
    {"flash wq_a and wkv", 32, 1536, 4096, kFp8, true},
    {"flash shared expert", 32, 4096, 4096, kFp8, true},
    {"flash wo_b", kMany, 4096, 8192, kFp8, true},
    // Keys or gates; both for ratio 4.
    {"flash compressor, ratio 4", kMany, 1024, 4096, kBf16, false, DType::kBf16, DType::kF32},
    {"flash compressor, ratio 128", kMany, 512, 4096, kBf16, false, DType::kBf16, DType::kF32},
    {"flash index compressor", kMany, 256, 4096, kBf16, false, DType::kBf16, DType::kF32},
    {"flash both of ratio 4", kMany, 2048, 4096, kBf16, false, DType::kBf16, DType::kF32},
    {"flash index weights", kMany, 64, 4096, kBf16, false},
    {"flash head", 32, 129280, 4096, kBf16, false, DType::kBf16, DType::kF32},
    {"pro wo_b", 8, 7168, 16384, kFp8, true},
};

void CheckShape(Checker& c, const Shape& s, std::string name, WeightLayout layout) {
  const bool tiles = layout == WeightLayout::kTiles;
  Random random = c.NewRandom(name);
  if (tiles) name += ", packed";
  if (!c.Wants(name, s.real)) return;
  CheckMemory memory(&c.pool());
  // Now and then a large value, so that the scales of the groups differ.
  const auto value = [&](int64_t i) {
    const double v = s.magnitude * random.Normal();
    if (s.outliers) return i % s.cols % 128 == 5 ? 0x1p16 : v;
    return random.Below(64) == 0 ? 16 * v : v;
  };
  const std::array<int64_t, 2> x_shape = {s.tokens, s.cols};
  const auto x = s.real ? memory.Normals<2>("x", s.x, x_shape, Access::kRead, random)
                        : memory.Activations<2>("x", s.x, x_shape, Access::kRead, value);
  const Matrix stored = memory.Weights("stored", s.w, s.rows, s.cols, random);
  if (tiles && !CanPack(stored)) return;
  const Matrix w = tiles ? memory.Packed("w", stored) : stored;
  const auto out = memory.Activations<2>("out", s.out, {s.tokens, s.rows}, Access::kWrite);

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    return LinearArgs{at(x).Rows(begin, count), at(w), s.quantise, at(out).Rows(begin, count)};
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
    Expect in;
    for (int64_t t : tokens) Append(in, Values(x, t * s.cols, s.cols));
    const bool quantised = s.quantise && s.x == DType::kBf16;
    for (size_t t = 0; t < tokens.size() && quantised; ++t) {
      QuantiseE4m3(std::span<Approx>(in).subspan(t * s.cols, s.cols), 128);
    }
    Expect y = MatMul(in, stored, a, quantised, pool);
    Round(y, s.out);
    return y;
  };
  k.cost.bytes = WeightBytes(stored) + x.size() * SizeOf(s.x) + out.size() * SizeOf(s.out);
  k.cost.flops = 2 * s.tokens * s.rows * s.cols;
  k.warm = true;
  k.real = s.real;
  c.Run<LinearArgs>(memory, k, args);
}

void CheckLayouts(Checker& c, const Shape& s, const std::string& name) {
  c.ForLayouts(s.real, [&](WeightLayout layout) { CheckShape(c, s, name, layout); });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckLayouts(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckLayouts(c, s, name); });
}

}  // namespace seacliff::linear
