// Cases, expectation and cost of mhc_head.
#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/mhc_head/op.h"

namespace seacliff::mhc_head {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, streams, dim;
  DType dtype;
  int64_t every;  // the last of each so many tokens is a row; 0: no rows
  bool post = true;
  double magnitude = 1;
  bool real = false;
  float hc_eps = 1e-6f;
};

constexpr float kNormEps = 1e-6f;

constexpr Shape kShapes[] = {
    {"every token", 4, 4, 256, DType::kBf16, 1},
    {"every token, exact", 4, 4, 256, DType::kF32, 1},
    {"some tokens", 7, 4, 128, DType::kBf16, 3},
    {"many rows, ragged pieces", 23, 4, 528, DType::kBf16, 1},
    {"no post", 5, 4, 128, DType::kBf16, 2, false},
    {"no rows", 3, 4, 64, DType::kBf16, 0},
    {"odd sizes, exact", 3, 3, 33, DType::kF32, 2},
    {"zeros", 2, 4, 64, DType::kBf16, 1, true, 0},
    {"an eps that shows, exact", 2, 4, 64, DType::kF32, 1, true, 1, false, 0.01f},
    {"no tokens", 0, 4, 64, DType::kBf16, 1},
    {"17 tokens, ragged groups", 17, 4, 288, DType::kBf16, 4},
    {"many tokens, ragged groups", 517, 4, 288, DType::kBf16, 5},
    {"many tokens, no post", 515, 4, 64, DType::kBf16, 3, false},
    {"very many tokens", 2051, 4, 32, DType::kBf16, 100},
    {"wide, ragged groups", 3, 4, 4128, DType::kBf16, 2},
};

// `tokens` is how many there are at most: decoding, where each is a row, and chunks of prompts,
// where the last one is.
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 4, 4096, DType::kBf16, 1},
    {"pro", 1, 4, 7168, DType::kBf16, 1},
};
constexpr int64_t kMostDecoded = 32;

void CheckShape(Checker& c, const Shape& s, const std::string& name) {
  if (!c.Wants(name, s.real)) return;
  Random random = c.NewRandom(name);
  CheckMemory memory(&c.pool());
  const int64_t n = s.streams, width = n + n * n;
  Act<2> y;
  if (s.post) {
    y = memory.Normals<2>("y", s.dtype, {s.tokens, s.dim}, Access::kRead, random, s.magnitude);
  }
  const auto streams = memory.Normals<3>("streams", s.dtype, {s.tokens, n, s.dim}, Access::kWrite,
                                         random, s.magnitude);
  // Without a post nobody reads the mix.
  const auto mix = memory.Array<float, 2>("mix", {s.tokens, width}, Access::kRead);
  for (int64_t i = 0; i < mix.size() && s.post; ++i) {
    mix.data[i] = static_cast<float>(random.Uniform());
  }
  const Matrix fn = memory.Weights("fn", WeightFormat::kF32, n, n * s.dim, random);
  const auto base =
      memory.Array<float, 1>("base", {n}, Access::kRead, [&](int64_t) { return random.Normal(); });
  const auto scale =
      memory.Array<float, 1>("scale", {1}, Access::kRead, [](int64_t) { return 0.75; });
  const auto weight = memory.NormWeights(s.dim, random);
  std::vector<int64_t> chosen;
  for (int64_t t = 0; t < s.tokens && s.every > 0; ++t) {
    if ((t + 1) % s.every == 0) chosen.push_back(t);
  }
  const auto count = static_cast<int64_t>(chosen.size());
  const auto rows = memory.Array<int32_t, 1>("rows", {count}, Access::kRead,
                                             [&](int64_t i) { return chosen[i]; });
  const auto first =
      memory.Array<int32_t, 1>("rows", {1}, Access::kRead, [](int64_t) { return 0; });
  const auto x = memory.Activations<2>("x", s.dtype, {count, s.dim}, Access::kWrite);

  CheckMemory before(&c.pool());
  const auto streams_before =
      before.Activations<3>("streams", s.dtype, streams.shape, Access::kRead);
  std::memcpy(streams_before.data, streams.data,
              static_cast<size_t>(streams.size() * SizeOf(s.dtype)));

  const auto args = [=](const Place& at, int64_t part) {
    MhcHeadArgs a{y ? at(y) : y, at(streams), at(mix),  {at(fn), at(base), at(scale)},
                  at(weight),    kNormEps,    s.hc_eps, at(rows),
                  at(x)};
    if (part == kWhole) return a;
    // One token is its own row 0, if it is a row at all.
    const auto found = std::find(chosen.begin(), chosen.end(), part);
    const int64_t row = found - chosen.begin(), taken = found == chosen.end() ? 0 : 1;
    if (y) a.y = a.y.Rows(part, 1);
    a.streams = a.streams.Rows(part, 1);
    a.mix.data += part * width;
    a.mix.shape[0] = 1;
    a.rows = at(first);
    a.rows.shape[0] = taken;
    a.x = a.x.Rows(row, taken);
    return a;
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all, inputs;
    for (int64_t t : tokens) {
      Append(all, Loaded(at(streams).Rows(t, 1)));
      const auto found = std::find(chosen.begin(), chosen.end(), t);
      if (found == chosen.end()) continue;
      Append(inputs, Loaded(at(x).Rows(found - chosen.begin(), 1)));
    }
    Append(all, inputs);
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all, inputs;
    for (int64_t t : tokens) {
      const Expect h = MhcStreams(y, streams_before, mix, t, a);
      Append(all, h);
      if (std::find(chosen.begin(), chosen.end(), t) == chosen.end()) continue;
      Expect w = MhcProjection(h, fn, kNormEps, a);
      for (int64_t j = 0; j < n; ++j) {
        w[j].value = w[j].value * scale(0) + base(j);
        w[j].slack = w[j].slack * scale(0) + a.Step() * (std::fabs(w[j].value) + 1);
        w[j] = SigmoidOf(w[j], a);
        w[j].value += s.hc_eps;
      }
      Append(inputs, MhcInput(h, w, s.dtype, weight, kNormEps, a));
    }
    Append(all, inputs);
    return all;
  };
  const int64_t posts = s.post ? s.tokens : 0;
  k.cost.bytes =
      WeightBytes(fn) + (posts * (2 * n + 1) + count * (n + 1)) * s.dim * SizeOf(s.dtype);
  k.cost.flops = 2 * posts * (n + 1) * n * s.dim + 2 * count * (n + 2) * n * s.dim;
  k.real = s.real;
  c.Run<MhcHeadArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckShape(c, s, s.name);
  c.ForReal(kReal, [&](Shape s, const std::string& name) {
    s.every = s.tokens <= kMostDecoded ? 1 : s.tokens;
    CheckShape(c, s, name);
  });
}

}  // namespace seacliff::mhc_head
