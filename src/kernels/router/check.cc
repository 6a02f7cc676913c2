// Cases, expectation and cost of router.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/common/packing.h"
#include "kernels/router/op.h"

namespace seacliff::router {
namespace {

struct Shape {
  const char* name;
  int64_t tokens, experts, dim, picks;
  bool hash;
  DType dtype = DType::kBf16;
  double magnitude = 1, bias = 8;
  bool same_experts = false;  // every expert equal: ties everywhere
  bool real = false;
  bool margin = false;  // asked for
};

constexpr int64_t kVocab = 50;

constexpr Shape kShapes[] = {
    {"scored", 6, 64, 256, 6, false},
    {"scored, exact", 6, 64, 256, 6, false, DType::kF32},
    {"hash", 6, 64, 256, 6, true},
    {"hash, exact", 6, 64, 256, 6, true, DType::kF32},
    {"wide logits", 6, 32, 128, 4, false, DType::kBf16, 6, 0},
    {"logits beyond 20", 4, 32, 128, 4, false, DType::kBf16, 30, 0},
    {"ties", 3, 20, 64, 5, false, DType::kBf16, 1, 8, true},
    {"odd sizes", 3, 7, 33, 3, false},
    {"every expert", 3, 5, 64, 5, false},
    {"many tokens", 200, 72, 160, 6, false},
    {"many tokens, whole blocks", 70, 72, 256, 6, false},
    {"columns of two turns", 20, 300, 4224, 6, false},
    {"columns of two turns, hash", 3, 40, 4224, 12, true},
    {"ties, whole blocks", 11, 20, 128, 5, false, DType::kBf16, 1, 8, true},
    {"no tokens", 0, 16, 64, 4, false},
    {"margin", 4, 32, 64, 4, false, DType::kBf16, 1, 8, false, false, true},
    {"margin, ties", 2, 8, 64, 4, false, DType::kBf16, 1, 8, true, false, true},
    {"margin, every expert", 2, 5, 64, 5, false, DType::kBf16, 1, 8, false, false, true},
    {"margin, whole blocks", 9, 40, 256, 6, false, DType::kBf16, 1, 8, false, false, true},
    {"margin, hash", 2, 8, 64, 4, true, DType::kBf16, 1, 8, false, false, true},
};

// `tokens` is how many there are at most.
constexpr Shape kReal[] = {
    {"flash", int64_t{1} << 40, 256, 4096, 6, false},
    {"flash, hash", int64_t{1} << 40, 256, 4096, 6, true},
    {"pro", 1, 384, 7168, 6, false},
};

// sqrt(log(1 + e^x)), whose slope is sigmoid(x) / (2 sqrt(softplus(x))) <= 1/2.
Approx Affinity(Approx logit, Allowance a) {
  const double x = logit.value;
  const double softplus = x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  const double root = std::sqrt(softplus);
  const double slope = 1 / (1 + std::exp(-x)) / (2 * root);
  return {root, slope * logit.slack + root * a.Step()};
}

// `all_equal`: the experts are the same, and so are their scores in every row.
std::string CheckChoice(View<const int32_t, 1> picks, const Expect& scores, bool all_equal) {
  std::vector<bool> picked(scores.size());
  for (int64_t i = 0; i < picks.shape[0]; ++i) {
    const auto e = static_cast<size_t>(picks(i));
    if (e >= scores.size() || picked[e]) return fmt::format("pick {} is expert {}", i, picks(i));
    picked[e] = true;
  }
  for (size_t in = 0; in < scores.size(); ++in) {
    for (size_t out = 0; picked[in] && out < scores.size(); ++out) {
      if (picked[out]) continue;
      const Approx x = scores[in], y = scores[out];
      if (x.value + x.slack < y.value - y.slack || (all_equal && out < in)) {
        return fmt::format("expert {} (score {:.9g}) is picked, {} ({:.9g}) is not", in, x.value,
                           out, y.value);
      }
    }
  }
  return "";
}

// By how much the last pick beats the best expert left out.
std::string CheckMargin(double margin, Expect scores, int64_t picks) {
  if (picks == static_cast<int64_t>(scores.size())) {
    return std::isinf(margin) ? "" : "the margin is finite";
  }
  std::sort(scores.begin(), scores.end(),
            [](const Approx& x, const Approx& y) { return x.value > y.value; });
  const Approx last = scores[picks - 1], next = scores[picks];
  const double want = last.value - next.value;
  if (std::fabs(margin - want) <= 2 * (last.slack + next.slack)) return "";
  return fmt::format("the margin is {:.9g}, not {:.9g}", margin, want);
}

std::string CheckWeights(View<const int32_t, 1> picks, View<const float, 1> weights,
                         const Approx* affinity, double route_scale, Allowance a) {
  Approx sum;
  for (int64_t i = 0; i < picks.shape[0]; ++i) {
    sum.value += affinity[picks(i)].value;
    sum.slack += affinity[picks(i)].slack;
  }
  for (int64_t i = 0; i < picks.shape[0]; ++i) {
    const Approx v = affinity[picks(i)];
    const double want = v.value / sum.value * route_scale;
    const double relative = v.slack / v.value + sum.slack / sum.value + 2 * a.Step();
    if (!(std::fabs(weights(i) - want) <= want * relative)) {
      return fmt::format("weight {} is {:.9g}, not {:.9g} +- {:.3g}", i, weights(i), want,
                         want * relative);
    }
  }
  return "";
}

void CheckShape(Checker& c, const Shape& s, std::string name, WeightLayout layout) {
  const bool tiles = layout == WeightLayout::kTiles;
  Random random = c.NewRandom(name);
  if (tiles) name += ", packed";
  if (!c.Wants(name, s.real)) return;
  CheckMemory memory(&c.pool());
  const int64_t vocab = s.real ? 129280 : kVocab;
  const auto x =
      memory.Normals<2>("x", s.dtype, {s.tokens, s.dim}, Access::kRead, random, s.magnitude);
  const Matrix gate = memory.Weights("gate", WeightFormat::kBf16, s.experts, s.dim, random);
  auto* gate_bytes = static_cast<char*>(const_cast<void*>(gate.data));
  for (int64_t e = 1; e < s.experts && s.same_experts; ++e) {
    std::memcpy(gate_bytes + e * gate.row_bytes(), gate_bytes,
                static_cast<size_t>(gate.row_bytes()));
  }
  if (tiles && !CanPack(gate)) return;
  const Matrix given = tiles ? memory.Packed("packed gate", gate) : gate;
  View<float, 1> bias;
  View<int64_t, 2> table;
  View<int32_t, 1> ids;
  if (s.hash) {
    ids = memory.Array<int32_t, 1>("ids", {s.tokens}, Access::kRead,
                                   [&](int64_t) { return random.Below(vocab); });
    table = memory.Array<int64_t, 2>("table", {vocab, s.picks}, Access::kRead);
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t first = random.Below(s.experts);
      for (int64_t i = 0; i < s.picks; ++i) table(ids(t), i) = (first + 7 * i) % s.experts;
    }
  } else {
    bias = memory.Array<float, 1>("bias", {s.experts}, Access::kRead, [&](int64_t) {
      return s.bias + (s.same_experts ? 0 : 0.1 * random.Normal());
    });
    // Ids are of no account here and must not be read.
    ids = memory.Array<int32_t, 1>("ids", {s.tokens}, Access::kRead);
  }
  const auto picks = memory.Array<int32_t, 2>("picks", {s.tokens, s.picks}, Access::kWrite);
  const auto weights = memory.Array<float, 2>("weights", {s.tokens, s.picks}, Access::kWrite);
  View<float, 1> margin;
  if (s.margin) margin = memory.Array<float, 1>("margin", {s.tokens}, Access::kWrite);
  constexpr float kRouteScale = 2.5f;

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? s.tokens : 1;
    RouterArgs r{at(x).Rows(begin, count),
                 at(given),
                 at(bias),
                 at(table),
                 at(ids),
                 kRouteScale,
                 at(picks),
                 at(weights),
                 at(margin)};
    r.ids.data += begin;
    r.picks.data += begin * s.picks;
    r.weights.data += begin * s.picks;
    r.ids.shape[0] = r.picks.shape[0] = r.weights.shape[0] = count;
    if (s.margin) r.margin.data += begin;
    r.margin.shape[0] = count;
    return r;
  };
  const std::vector<int64_t> tokens = TokensToCheck(s.tokens, s.real, random);
  Case k;
  k.name = name;
  k.parts = s.tokens;
  k.alone = true;
  k.verify = [=](const Place& at, Allowance a) {
    Expect in;
    for (int64_t t : tokens) Append(in, Values(x, t * s.dim, s.dim));
    Expect affinity = MatMul(in, gate, a);
    for (Approx& v : affinity) v = Affinity(Round(v, DType::kF32), a);
    const Approx* row = affinity.data() - s.experts;
    for (int64_t t : tokens) {
      row += s.experts;
      std::string wrong;
      for (int64_t i = 0; i < s.picks && s.hash; ++i) {
        if (at(picks)(t, i) != table(ids(t), i))
          wrong = fmt::format("pick {} is not the table's", i);
      }
      if (!s.hash) {
        Expect scores(row, row + s.experts);
        for (int64_t e = 0; e < s.experts; ++e) {
          scores[e].value += bias(e);
          scores[e] = Round(scores[e], DType::kF32);
        }
        wrong = CheckChoice(at(picks)[t], scores, s.same_experts);
        // Only ref owes a margin.
        if (wrong.empty() && s.margin && !a.loose) {
          wrong = CheckMargin(at(margin)(t), scores, s.picks);
        }
      } else if (wrong.empty() && s.margin && !a.loose && !std::isinf(at(margin)(t))) {
        wrong = "the margin is finite";
      }
      if (wrong.empty()) {
        wrong = CheckWeights(at(picks)[t], at(weights)[t], row, kRouteScale, a);
      }
      if (!wrong.empty()) return fmt::format("token {}: {}", t, wrong);
    }
    return std::string();
  };
  k.cost.bytes = WeightBytes(gate) + x.size() * SizeOf(s.dtype) + picks.size() * 8;
  k.cost.flops = 2 * s.tokens * s.experts * s.dim;
  k.real = s.real;
  c.Run<RouterArgs>(memory, k, args);
}

void CheckLayouts(Checker& c, const Shape& s, const std::string& name) {
  c.ForLayouts(s.real, [&](WeightLayout layout) { CheckShape(c, s, name, layout); });
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) CheckLayouts(c, s, s.name);
  c.ForReal(kReal, [&](const Shape& s, const std::string& name) { CheckLayouts(c, s, name); });
}

}  // namespace seacliff::router
