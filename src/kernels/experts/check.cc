// Cases, expectation and cost of experts.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/check_table.h"
#include "kernels/common/packing.h"
#include "kernels/experts/op.h"

namespace seacliff::experts {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, experts, picks, dim, inter;
  WeightFormat routed;
  DType dtype = DType::kBf16;
  bool shared = true;
  double magnitude = 1;
  bool real = false;
};

constexpr float kLimit = 10;

constexpr auto kMxfp4 = WeightFormat::kMxfp4;
constexpr auto kFp8 = WeightFormat::kFp8;
constexpr auto kBf16 = DType::kBf16;

constexpr Shape kShapes[] = {
    {"mxfp4", 5, 8, 3, 256, 128, kMxfp4},
    {"mxfp4, exact", 4, 8, 3, 256, 128, kMxfp4, DType::kF32},
    {"fp8 experts", 3, 4, 2, 256, 256, kFp8},
    {"f32, exact", 2, 4, 2, 64, 32, WeightFormat::kF32, DType::kF32},
    {"without a shared expert", 3, 6, 2, 128, 128, kMxfp4, kBf16, false},
    {"at the limits", 3, 6, 2, 128, 128, kMxfp4, kBf16, true, 30},
    {"at the limits, exact", 3, 6, 2, 128, 128, kMxfp4, DType::kF32, true, 30},
    {"one expert of many", 1, 64, 1, 128, 64, kMxfp4},
    {"ragged quantisation groups", 3, 4, 2, 160, 96, kMxfp4},
    {"zeros", 2, 4, 2, 128, 128, kMxfp4, kBf16, true, 0},
    {"no tokens", 0, 4, 2, 128, 128, kMxfp4},
    {"many tokens an expert", 40, 3, 2, 128, 64, kMxfp4},
    {"300 tokens an expert", 300, 2, 1, 64, 32, kMxfp4},
    {"20 tokens, 4 experts", 20, 4, 2, 288, 160, kMxfp4},
    {"fp8, 20 tokens, 4 experts", 20, 4, 2, 288, 160, kFp8},
    {"70 tokens, 3 experts", 70, 3, 2, 544, 288, kMxfp4},
    {"fp8, 70 tokens, 3 experts", 70, 3, 2, 288, 160, kFp8},
    {"400 experts", 9, 400, 6, 64, 32, kMxfp4},
    {"few tokens", 5, 8, 3, 1024, 512, kMxfp4},
    {"few tokens, without a shared expert", 3, 6, 2, 512, 512, kMxfp4, kBf16, false},
    {"few tokens, ragged stages", 2, 5, 2, 2560, 1536, kMxfp4},
    {"few tokens, 20", 20, 4, 2, 1024, 512, kMxfp4},
    {"few tokens, 40 an expert", 40, 2, 1, 512, 512, kMxfp4},
    {"few tokens, 300 experts", 9, 300, 6, 512, 512, kMxfp4},
    {"160 tokens, 6 picks", 160, 8, 6, 512, 512, kMxfp4},
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 256, 6, 4096, 2048, kMxfp4},
    {"flash without the shared expert", int64_t{1} << 40, 256, 6, 4096, 2048, kMxfp4, kBf16, false},
    {"flash, one of two ranks", 32, 256, 6, 4096, 1024, kMxfp4},
    {"pro", 1, 384, 6, 7168, 3072, kMxfp4},
};

ExpertWeights MakeExpert(CheckMemory& memory, Random& random, WeightFormat format, const Shape& s,
                         bool used) {
  return {memory.Weights("w1", format, s.inter, s.dim, random, used),
          memory.Weights("w3", format, s.inter, s.dim, random, used),
          memory.Weights("w2", format, s.dim, s.inter, random, used)};
}

ExpertWeights Packed(CheckMemory& memory, const ExpertWeights& w) {
  return {memory.Packed("packed w1", w.gate), memory.Packed("packed w3", w.up),
          memory.Packed("packed w2", w.down)};
}

int64_t Bytes(const ExpertWeights& w) {
  return WeightBytes(w.gate) + WeightBytes(w.up) + WeightBytes(w.down);
}

// silu(g) * u * weight of clamped g and u; silu's slope stays below 1.1.
Approx Gated(Approx g, Approx u, double weight, Allowance a) {
  const double gate = std::min<double>(g.value, kLimit);
  const double up = std::clamp<double>(u.value, -kLimit, kLimit);
  const double silu = gate * 0.5 * (1 + std::tanh(gate / 2));
  const double silu_slack = 1.1 * g.slack + a.Step() * std::fabs(gate);
  const double slack = std::fabs(up) * silu_slack + (std::fabs(silu) + silu_slack) * u.slack;
  return {silu * up * weight, std::fabs(weight) * (slack + a.Step() * std::fabs(silu * up))};
}

// One expert's output for one token, rounded.
Expect Output(const Expect& x, const ExpertWeights& w, double weight, DType dtype, Allowance a,
              ThreadPool* pool) {
  const bool quantised = dtype == DType::kBf16;
  Expect g = MatMul(x, w.gate, a, quantised, pool), u = MatMul(x, w.up, a, quantised, pool);
  Round(g, dtype);
  Round(u, dtype);
  for (size_t i = 0; i < g.size(); ++i) g[i] = Round(Gated(g[i], u[i], weight, a), dtype);
  if (quantised) QuantiseE4m3(g, 128);
  Expect y = MatMul(g, w.down, a, quantised, pool);
  Round(y, dtype);
  return y;
}

void CheckShape(Checker& c, const Shape& s, std::string name, bool packed) {
  Random random = c.NewRandom(name);
  if (packed) name += ", packed";
  if (!c.Wants(name, s.real)) return;
  CheckMemory memory(&c.pool());
  const auto x =
      memory.Normals<2>("x", s.dtype, {s.tokens, s.dim}, Access::kRead, random, s.magnitude);
  const auto picks = memory.Array<int32_t, 2>("picks", {s.tokens, s.picks}, Access::kRead);
  const auto weights = memory.Array<float, 2>("weights", {s.tokens, s.picks}, Access::kRead,
                                              [&](int64_t) { return random.Uniform(); });
  std::vector<bool> used(static_cast<size_t>(s.experts));
  for (int64_t t = 0; t < s.tokens; ++t) {
    const int64_t first = random.Below(s.experts);
    for (int64_t i = 0; i < s.picks; ++i) {
      picks(t, i) = static_cast<int32_t>((first + 3 * i) % s.experts);
      if (s.real) {  // any of the experts, each at most once
        do {
          picks(t, i) = static_cast<int32_t>(random.Below(s.experts));
        } while (std::find(&picks(t, 0), &picks(t, i), picks(t, i)) != &picks(t, i));
      }
      // A weight of zero now and then, as vanishing affinities give.
      if (!s.real && random.Below(16) == 0) weights(t, i) = 0;
      used[picks(t, i)] = true;
    }
  }
  // Weights of experts that nobody picked are poison; at real sizes they are one and the same.
  std::vector<ExpertWeights> experts;
  ExpertWeights unused;
  int64_t bytes = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    if (used[e] || !s.real || !unused.gate) {
      experts.push_back(MakeExpert(memory, random, s.routed, s, used[e]));
      if (!used[e]) unused = experts.back();
    } else {
      experts.push_back(unused);
    }
    if (used[e]) bytes += Bytes(experts.back());
  }
  ExpertWeights shared;
  const bool f32 = s.routed == WeightFormat::kF32;
  if (s.shared) {
    shared = MakeExpert(memory, random, f32 ? WeightFormat::kF32 : kFp8, s, true);
    bytes += Bytes(shared);
  }
  std::vector<ExpertWeights> given = experts;  // what the rows get
  ExpertWeights given_shared = shared;
  if (packed) {
    ExpertWeights packed_unused;
    for (ExpertWeights& w : given) {
      const bool is_unused = w.gate.data == unused.gate.data;
      if (is_unused && packed_unused.gate && s.real) {
        w = packed_unused;
        continue;
      }
      w = Packed(memory, w);
      if (is_unused) packed_unused = w;
    }
    if (s.shared) given_shared = Packed(memory, shared);
  }
  const auto y = memory.Activations<2>("y", s.dtype, {s.tokens, s.dim}, Access::kWrite);

  // Arguments hold a span of the weights in their place.
  const auto placed = std::make_shared<std::vector<ExpertWeights>>();
  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    placed->clear();
    for (const ExpertWeights& w : given) placed->push_back({at(w.gate), at(w.up), at(w.down)});
    View<const int32_t, 2> picks_rows = at(picks);
    View<const float, 2> weight_rows = at(weights);
    picks_rows.data += begin * s.picks;
    weight_rows.data += begin * s.picks;
    picks_rows.shape[0] = weight_rows.shape[0] = count;
    return ExpertsArgs{at(x).Rows(begin, count),
                       *placed,
                       {at(given_shared.gate), at(given_shared.up), at(given_shared.down)},
                       picks_rows,
                       weight_rows,
                       kLimit,
                       at(y).Rows(begin, count)};
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : tokens) Append(all, Loaded(at(y).Rows(t, 1)));
    return all;
  };
  // Token by token; rows go expert by expert.
  k.expect = [=, pool = &c.pool()](Allowance a) {
    Expect all;
    for (int64_t t : tokens) {
      Expect in = Values(x, t * s.dim, s.dim), sum(in.size());
      if (s.dtype == DType::kBf16) QuantiseE4m3(in, 128);
      const auto add = [&](const ExpertWeights& w, double weight) {
        const Expect out = Output(in, w, weight, s.dtype, a, pool);
        for (size_t i = 0; i < sum.size(); ++i) {
          sum[i].value += out[i].value;
          sum[i].slack += out[i].slack + a.Sum(s.picks) * std::fabs(out[i].value);
        }
      };
      for (int64_t i = 0; i < s.picks; ++i) add(experts[picks(t, i)], weights(t, i));
      if (s.shared) add(shared, 1);
      Round(sum, s.dtype);
      Append(all, sum);
    }
    return all;
  };
  k.cost.bytes = bytes + 2 * x.size() * SizeOf(s.dtype) + picks.size() * 8;
  k.cost.flops = 6 * s.tokens * (s.picks + (s.shared ? 1 : 0)) * s.dim * s.inter;
  k.real = s.real;
  c.Run<ExpertsArgs>(memory, k, args);
}

void CheckLayouts(Checker& c, const Shape& s, const std::string& name) {
  c.ForLayouts(s.real, [&](WeightLayout layout) {
    const bool packed = layout == WeightLayout::kTiles;
    if (!packed || s.routed != WeightFormat::kF32) CheckShape(c, s, name, packed);
  });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckLayouts(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckLayouts(c, s, name); });
}

}  // namespace seacliff::experts
