// Cases, expectation and cost of mhc_boundary.
#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/mhc_boundary/op.h"

namespace seacliff::mhc_boundary {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, streams, dim;
  DType dtype;
  bool first = false;  // the first boundary of the model: no y, and mix is not read
  int64_t iters = 20;
  double magnitude = 1, scale = 1;
  bool real = false;
  float hc_eps = 1e-6f;
};

constexpr float kNormEps = 1e-6f;

constexpr Shape kShapes[] = {
    {"4 streams", 4, 4, 256, DType::kBf16},
    {"4 streams, exact", 4, 4, 256, DType::kF32},
    {"6 tokens, ragged pieces", 6, 4, 528, DType::kBf16},
    {"35 tokens, ragged pieces", 35, 4, 1040, DType::kBf16},
    {"first", 3, 4, 256, DType::kBf16, true},
    {"first, exact", 3, 4, 256, DType::kF32, true},
    {"2 streams, odd dim", 3, 2, 33, DType::kBf16},
    {"one stream", 2, 1, 64, DType::kF32},
    {"one iteration", 3, 4, 64, DType::kF32, false, 1},
    {"sharp mixing", 3, 4, 128, DType::kBf16, false, 20, 1, 20},
    {"zeros", 2, 4, 64, DType::kBf16, false, 20, 0},
    {"large", 2, 4, 64, DType::kBf16, false, 20, 1e6},
    {"an eps that shows, exact", 3, 4, 64, DType::kF32, false, 20, 1, 1, false, 0.01f},
    {"no tokens", 0, 4, 64, DType::kBf16},
    // Devices sum few and many tokens in different kernels, by groups of columns: ragged ones here.
    {"17 tokens, ragged groups", 17, 4, 288, DType::kBf16},
    {"many tokens, ragged groups", 517, 4, 288, DType::kBf16},
    {"many tokens, first", 515, 4, 64, DType::kBf16, true},
    {"very many tokens", 2051, 4, 32, DType::kBf16},
    {"wide, ragged groups", 3, 4, 4128, DType::kBf16},
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 4, 4096, DType::kBf16},
    {"pro", 1, 4, 7168, DType::kBf16},
};

// The [n, n] matrix of logits as a doubly stochastic one, row by row. Scaling rows and columns
// never makes the ratio of two errors larger, so the relative error of an entry stays within four
// times that of the first softmax, and each of its steps adds its own.
Expect Sinkhorn(const Expect& logits, size_t n, int64_t iters, double eps, Allowance a) {
  std::vector<double> m(n * n);
  double error = 0;
  for (size_t j = 0; j < n; ++j) {
    double top = logits[j * n].value, sum = 0;
    for (size_t k = 0; k < n; ++k) top = std::max(top, logits[j * n + k].value);
    for (size_t k = 0; k < n; ++k) {
      const Approx x = logits[j * n + k];
      error = std::max(error, 2 * x.slack + a.Step() * (1 + std::fabs(x.value - top)));
      sum += m[j * n + k] = std::exp(x.value - top);
    }
    for (size_t k = 0; k < n; ++k) m[j * n + k] = m[j * n + k] / sum + eps;
  }
  // stride and step of the lines: columns, then rows and columns in turn.
  for (int64_t pass = 0; pass < 2 * iters - 1; ++pass) {
    const bool columns = pass % 2 == 0;
    for (size_t line = 0; line < n; ++line) {
      double sum = eps;
      for (size_t i = 0; i < n; ++i) sum += columns ? m[i * n + line] : m[line * n + i];
      for (size_t i = 0; i < n; ++i) (columns ? m[i * n + line] : m[line * n + i]) /= sum;
    }
  }
  error = 4 * error + static_cast<double>(2 * iters) * static_cast<double>(n + 2) * 0x1p-24;
  Expect out;
  for (double v : m) out.push_back({v, v * error});
  return out;
}

void CheckShape(Checker& c, const Shape& s, const std::string& name) {
  if (!c.Wants(name, s.real)) return;
  Random random = c.NewRandom(name);
  CheckMemory memory(&c.pool());
  const int64_t n = s.streams, width = n + n * n, rows = 2 * n + n * n;
  Act<2> y;
  if (!s.first) {
    y = memory.Normals<2>("y", s.dtype, {s.tokens, s.dim}, Access::kRead, random, s.magnitude);
  }
  const auto streams = memory.Normals<3>("streams", s.dtype, {s.tokens, n, s.dim}, Access::kWrite,
                                         random, s.magnitude);
  const auto mix = memory.Array<float, 2>("mix", {s.tokens, width}, Access::kWrite);
  for (int64_t i = 0; i < mix.size() && !s.first; ++i) {
    mix.data[i] = static_cast<float>(random.Uniform());
  }
  const Matrix fn = memory.Weights("fn", WeightFormat::kF32, rows, n * s.dim, random);
  const auto base = memory.Array<float, 1>("base", {rows}, Access::kRead,
                                           [&](int64_t) { return random.Normal(); });
  const auto scale = memory.Array<float, 1>(
      "scale", {3}, Access::kRead, [&](int64_t) { return s.scale * (0.5 + random.Uniform()); });
  const auto weight = memory.NormWeights(s.dim, random);
  const auto x = memory.Activations<2>("x", s.dtype, {s.tokens, s.dim}, Access::kWrite);

  // What is updated in place is kept as it was.
  CheckMemory before(&c.pool());
  const auto streams_before =
      before.Activations<3>("streams", s.dtype, streams.shape, Access::kRead);
  std::memcpy(streams_before.data, streams.data,
              static_cast<size_t>(streams.size() * SizeOf(s.dtype)));
  const auto mix_before = before.Array<float, 2>("mix", mix.shape, Access::kRead,
                                                 [&](int64_t i) { return mix.data[i]; });

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    View<float, 2> mix_rows = at(mix);
    mix_rows.data += begin * width;
    mix_rows.shape[0] = count;
    return MhcBoundaryArgs{y ? at(y).Rows(begin, count) : y,
                           at(streams).Rows(begin, count),
                           mix_rows,
                           {at(fn), at(base), at(scale)},
                           at(weight),
                           kNormEps,
                           s.hc_eps,
                           s.iters,
                           at(x).Rows(begin, count)};
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  // Token by token: its streams, mix and x.
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) {
      for (double v : Loaded(at(streams).Rows(t, 1))) all.push_back(v);
      for (int64_t i = 0; i < width; ++i) all.push_back(at(mix)(t, i));
      for (double v : Loaded(at(x).Rows(t, 1))) all.push_back(v);
    }
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all;
    for (int64_t t : tokens) {
      const Expect h = MhcStreams(y, streams_before, mix_before, t, a);
      Append(all, h);
      Expect m = MhcProjection(h, fn, kNormEps, a);
      for (int64_t i = 0; i < rows; ++i) {
        const double factor = scale(i < n ? 0 : i < 2 * n ? 1 : 2);
        m[i].slack = m[i].slack * factor + a.Step() * std::fabs(m[i].value * factor);
        m[i].value = m[i].value * factor + base(i);
        m[i].slack += a.Step() * std::fabs(m[i].value);
      }
      Expect pre;
      for (int64_t j = 0; j < n; ++j) {
        const Approx p = SigmoidOf(m[j], a);
        pre.push_back({p.value + s.hc_eps, p.slack});
      }
      for (int64_t j = n; j < 2 * n; ++j) {
        const Approx post = SigmoidOf(m[j], a);
        all.push_back({2 * post.value, 2 * post.slack});
      }
      Append(all,
             Sinkhorn({m.begin() + 2 * n, m.end()}, static_cast<size_t>(n), s.iters, s.hc_eps, a));
      Append(all, MhcInput(h, pre, s.dtype, weight, kNormEps, a));
    }
    return all;
  };
  const int64_t values = streams.size() * 2 + x.size() + (y ? x.size() : 0);
  k.cost.bytes = WeightBytes(fn) + values * SizeOf(s.dtype) + 2 * mix.size() * 4;
  k.cost.flops = 2 * s.tokens * (rows + n + 2) * n * s.dim;
  k.real = s.real;
  c.Run<MhcBoundaryArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckShape(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckShape(c, s, name); });
}

}  // namespace seacliff::mhc_boundary
