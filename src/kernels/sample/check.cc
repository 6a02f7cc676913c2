// Cases, expectation and cost of sample. The expectation sorts whole rows and weighs them in
// double; it shares the random numbers with the rows and nothing else.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "kernels/check_table.h"
#include "kernels/sample/op.h"

namespace seacliff::sample {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNever = -0x1p100;       // for a logprob of -inf, which no tolerance takes
constexpr int32_t kWildId = 0x3fffff00;  // using it must fault or show

// Which ids a mask leaves: any; all but some likely ones; about half; a few; one; none.
enum class Mask : uint8_t { kAbsent, kMost, kHalf, kFew, kOne, kNone };

// What a request may ask for.
struct Setting {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1, min_p = 0;
  float repetition = 1, presence = 0, frequency = 0;
  bool bias = false, banned = false;
  Mask mask = Mask::kAbsent;
  int32_t top_logprobs = -1;
};

constexpr Setting kPlain = {}, kGreedy = {.temperature = 0};
constexpr Setting kChat = {.temperature = 0.6f, .top_p = 0.95f};
constexpr Setting kTop50 = {.temperature = 0.7f, .top_k = 50, .top_p = 0.9f};
constexpr Setting kMaskedGreedy = {.temperature = 0, .mask = Mask::kHalf};
constexpr Setting kMaskedChat = {.temperature = 0.6f, .top_p = 0.95f, .mask = Mask::kHalf};
constexpr Setting kMostly = {.top_p = 0.9f};
constexpr Setting kListed = {.top_k = 5, .top_logprobs = 1000};

constexpr Setting kSettings[] = {
    kGreedy,
    kPlain,
    kChat,
    kTop50,
    {.temperature = 2},
    {.temperature = 1e-30f},
    {.top_k = 1},
    {.top_k = 40},
    {.top_k = -1},
    {.top_k = 1 << 30},
    {.top_k = 4096},
    {.top_k = 4095, .top_p = 0.9f},
    {.top_p = 0.5f},
    {.top_p = 0.999f},
    {.top_p = 1e-6f},
    {.temperature = 2, .top_p = 0.9f},
    {.min_p = 0.05f},
    {.min_p = 1},
    {.top_k = 40, .min_p = 0.4f},
    {.temperature = 1.3f, .top_k = 100, .top_p = 0.8f, .min_p = 0.02f},
    {.temperature = 0, .repetition = 1.3f},
    {.temperature = 0, .presence = 1.5f},
    {.temperature = 0, .frequency = 0.7f},
    {.repetition = 0.8f, .presence = -0.5f, .frequency = -0.3f},
    {.top_k = 20, .repetition = 1.1f, .presence = 0.4f, .frequency = 0.1f},
    {.temperature = 0, .bias = true},
    {.temperature = 0, .banned = true},
    {.bias = true, .banned = true},
    {.top_p = 0.7f, .bias = true, .banned = true},
    kMaskedGreedy,
    kMaskedChat,
    {.temperature = 0, .mask = Mask::kOne},
    {.temperature = 0, .bias = true, .mask = Mask::kFew},
    {.mask = Mask::kNone},
    {.mask = Mask::kMost},
    {.top_k = 1, .mask = Mask::kMost},
    {.top_k = 40, .top_p = 0.8f, .mask = Mask::kFew},
    {.top_k = 4095, .min_p = 0.05f, .mask = Mask::kHalf},
    {.top_p = 0.9f, .mask = Mask::kOne, .top_logprobs = 7},
    {.temperature = 0, .top_logprobs = 0},
    {.top_logprobs = 5},
    {.temperature = 0.8f,
     .top_k = 30,
     .top_p = 0.95f,
     .min_p = 0.01f,
     .repetition = 1.2f,
     .presence = 0.3f,
     .frequency = 0.2f,
     .bias = true,
     .banned = true,
     .top_logprobs = 20},
    {.temperature = 0.9f,
     .top_k = 30,
     .top_p = 0.95f,
     .min_p = 0.01f,
     .repetition = 1.2f,
     .presence = 0.3f,
     .frequency = 0.2f,
     .bias = true,
     .banned = true,
     .mask = Mask::kHalf,
     .top_logprobs = 20},
};

enum class Fill : uint8_t { kNormal, kWhole, kEqual, kZeros, kTwo, kHoles, kUnusable };

struct Shape {
  const char* name;
  int64_t vocab;
  double spread = 3;  // of the logits
  Fill fill = Fill::kNormal;
  int64_t rows = std::size(kSettings);  // with every setting in turn, or the one named here
  const Setting* setting = nullptr;
  bool real = false;
};

// One draw seldom shows a wrong edge; many do.
constexpr int64_t kMany = 20 * std::size(kSettings);

constexpr Shape kShapes[] = {
    {"4096 ids", 4096, 3, Fill::kNormal, kMany / 5},
    {"129280 ids", 129280},
    {"1 id", 1},
    {"2 ids", 2, 1, Fill::kNormal, kMany},
    {"7 ids", 7, 1, Fill::kNormal, kMany},
    {"257 ids, flat", 257, 0.1, Fill::kNormal, kMany},
    {"1021 ids, wide", 1021, 30, Fill::kNormal, kMany},
    {"ties", 4096, 2, Fill::kWhole, kMany / 5},
    {"ties of 20001 ids", 20001, 2, Fill::kWhole, kMany / 10},
    {"all equal", 1024, 1, Fill::kEqual, kMany},
    {"zeros of both signs", 1024, 1, Fill::kZeros, kMany / 5},
    {"two likely ids", 4096, 1, Fill::kTwo, kMany / 10, &kMostly},
    {"most ids at -inf", 515, 3, Fill::kHoles, kMany},
    {"unusable rows among others", 37, 3, Fill::kUnusable, kMany},
    {"no rows", 33, 3, Fill::kNormal, 0},
    {"1000 best of 129280 ids", 129280, 3, Fill::kNormal, 2, &kListed},
    {"1000 best, ties", 20001, 2, Fill::kWhole, 5, &kListed},
    {"1000 best, equal", 1024, 1, Fill::kEqual, 5, &kListed},
    {"1000 best, most at -inf", 2000, 3, Fill::kHoles, 8, &kListed},
    {"flash, 1 row, greedy", 129280, 3, Fill::kNormal, 1, &kGreedy, true},
    {"flash, 64 rows, greedy", 129280, 3, Fill::kNormal, 64, &kGreedy, true},
    {"flash, 64 rows, softmax", 129280, 3, Fill::kNormal, 64, &kPlain, true},
    {"flash, 1 row, top_p", 129280, 3, Fill::kNormal, 1, &kChat, true},
    {"flash, 64 rows, top_p", 129280, 3, Fill::kNormal, 64, &kChat, true},
    {"flash, 64 rows, greedy, masked", 129280, 3, Fill::kNormal, 64, &kMaskedGreedy, true},
    {"flash, 64 rows, top_p, masked", 129280, 3, Fill::kNormal, 64, &kMaskedChat, true},
    {"flash, 64 rows, top_k, top_p", 129280, 3, Fill::kNormal, 64, &kTop50, true},
};

const Setting& SettingOf(const Shape& s, int64_t row) {
  return s.setting != nullptr ? *s.setting : kSettings[row % std::size(kSettings)];
}

// More than any of its rows may list.
int64_t RoomForListed(const Shape& s) {
  int64_t most = 0;
  for (int64_t r = 0; r < s.rows; ++r) {
    most = std::max<int64_t>(most, SettingOf(s, r).top_logprobs);
  }
  return most + 1;
}

struct Logprob {
  int32_t id;
  double value;
};

struct Expected {
  Code code = Code::kOk;
  int32_t id = -1;
  bool has_logprobs = false;
  double logprob = 0;
  std::vector<Logprob> top;
  double mean_exponent = 0;  // of the softmax: what f32 loses in the exponents

  Approx Of(double value, int64_t vocab, Allowance a) const {
    if (value < kNever) return {kNever};
    return {value, (mean_exponent + 2 + std::fabs(value)) * a.Step() + a.Sum(vocab)};
  }
};

bool Usable(std::span<const float> logits) {
  const bool finite = std::all_of(logits.begin(), logits.end(), [](float v) {
    return v < kInfinity;  // false for NaN too
  });
  return finite && *std::max_element(logits.begin(), logits.end()) > -kInfinity;
}

// Ids, the best first.
std::vector<int32_t> Ranked(std::span<const float> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t x, int32_t y) { return logits[x] > logits[y]; });
  return order;
}

// Step 2 of op.h, rounded to f32 after every operation, so that rows agree on ties.
std::vector<float> Adjusted(const SampleRow& row) {
  std::vector<float> logits(row.logits.begin(), row.logits.end());
  if (row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0) {
    for (const auto& [id, count] : row.counts) {
      const double r = row.repetition_penalty, v = logits[id];
      logits[id] = static_cast<float>(v > 0 ? v / r : v * r);
      const auto often = static_cast<float>(double{row.frequency_penalty} * count);
      const auto penalty = static_cast<float>(double{often} + row.presence_penalty);
      if (count > 0) logits[id] = static_cast<float>(double{logits[id]} - penalty);
    }
  }
  for (const auto& [id, bias] : row.bias) {
    logits[id] = static_cast<float>(double{logits[id]} + bias);
  }
  for (const int32_t id : row.banned) logits[id] = -kInfinity;
  for (size_t id = 0; id < logits.size() && !row.allowed.empty(); ++id) {
    if ((row.allowed[id / 32] >> id % 32 & 1) == 0) logits[id] = -kInfinity;
  }
  return logits;
}

// Where the edges of steps 5 and 6 lie. Of a fraction of all weights, f32 in the exponents and
// weights may lose 2^-23 of the mean exponent, which is hardly more than the log of the number of
// ids, twice: below 4e-6. A draw is used only if all edges may shift by more and it stays the same.
// Weights of 1 and 0 alone are exact, and so are their edges.
constexpr double kShift = 1e-5;
struct Edges {
  double u, top_p, min_p;
};

// Steps 5 and 6. weights: by id; ranked: the best first.
int32_t Draw(const SampleRow& row, const std::vector<double>& weights,
             const std::vector<int32_t>& ranked, const Edges& edges) {
  const size_t n = row.top_k > 0 ? std::min<size_t>(row.top_k, ranked.size()) : ranked.size();
  double sum = 0, before = 0, stay_sum = 0;
  for (size_t i = 0; i < n; ++i) sum += weights[ranked[i]];
  std::vector<double> stay(weights.size(), 0);
  for (size_t i = 0; i < n; ++i) {
    const double weight = weights[ranked[i]];
    if (i > 0 && row.top_p < 1 && before >= edges.top_p * sum) break;
    before += weight;
    if (weight < edges.min_p) continue;
    stay[ranked[i]] = weight;
    stay_sum += weight;
  }
  double running = 0;
  int32_t last = -1;
  for (size_t id = 0; id < stay.size(); ++id) {
    if (stay[id] == 0) continue;
    running += stay[id];
    last = static_cast<int32_t>(id);
    if (running > edges.u * stay_sum) break;
  }
  return last;
}

// The id that every row must draw. Moves on to the next index while rounding could decide.
int32_t DrawClear(SampleRow* row, std::span<const float> logits) {
  const std::vector<int32_t> ranked = Ranked(logits);
  std::vector<double> weights;
  for (const float logit : logits) {
    weights.push_back(std::exp((double{logit} - logits[ranked[0]]) / row->temperature));
  }
  const double most =
      std::any_of(weights.begin(), weights.end(), [](double w) { return w != 0 && w != 1; })
          ? kShift
          : 0;
  for (int tries = 0; tries < 1000; ++tries, ++row->index) {
    const double u = RandomUniform(row->seed, row->index, seacliff::Draw::kToken);
    const int32_t id = Draw(*row, weights, ranked, {u, row->top_p, row->min_p});
    bool clear = true;
    for (int corner = 0; clear && corner < 8; ++corner) {
      const auto shift = [&](int bit) { return (corner >> bit & 1) != 0 ? most : -most; };
      const Edges edges = {u + shift(0), row->top_p + shift(1),
                           std::min(1.0, row->min_p * (1 + shift(2)))};
      clear = Draw(*row, weights, ranked, edges) == id;
    }
    if (clear) return id;
  }
  SC_CHECK(false);
  return -1;
}

void ExpectLogprobs(const SampleRow& row, Expected* e) {
  const std::vector<int32_t> ranked = Ranked(row.logits);
  const double largest = row.logits[ranked[0]];
  double sum = 0, exponents = 0;
  for (const float logit : row.logits) {
    const double exponent = logit - largest, weight = std::exp(exponent);
    sum += weight;
    if (weight > 0) exponents -= weight * exponent;
  }
  const auto logprob = [&](int32_t id) { return row.logits[id] - largest - std::log(sum); };
  e->has_logprobs = true;
  e->mean_exponent = exponents / sum;
  e->logprob = logprob(e->id);
  for (const int32_t id : ranked) {
    if (static_cast<int32_t>(e->top.size()) == row.top_logprobs) break;
    e->top.push_back({id, logprob(id)});
  }
}

// What the row must give; may move its index on.
Expected ExpectRow(SampleRow* row) {
  Expected e;
  e.code = Code::kInternal;
  if (!Usable(row->logits)) return e;
  const std::vector<float> logits = Adjusted(*row);
  if (!Usable(logits)) return e;
  e.code = Code::kOk;
  e.id = row->temperature == 0 ? Ranked(logits)[0] : DrawClear(row, logits);
  if (row->top_logprobs >= 0) ExpectLogprobs(*row, &e);
  return e;
}

// What was sampled, as numbers in the case's memory: [rows, kFixed + 2 listed]. Code, id, logprob,
// then the ids and logprobs of the best, -1 and 0 where there are no more.
using Outputs = View<float, 2>;
constexpr int64_t kFixed = 3;

// The arguments of one run. Tokens and errors own memory and cannot lie in the case's: they are
// copied there when the run is over.
class Run : public SampleArgs {
 public:
  Run(std::span<const SampleRow> given, std::span<SampleScratch> scratch, const Place& at,
      const Outputs& out, int64_t first)
      : rows_(given.begin(), given.end()),
        tokens_(given.size()),
        at_(at),
        out_(out),
        first_(first) {
    for (size_t i = 0; i < rows_.size(); ++i) {
      SampleRow& row = rows_[i];
      const auto vocab = static_cast<int64_t>(row.logits.size());
      row.logits = {at(View<const float, 1>(row.logits.data(), {vocab})).data, row.logits.size()};
      if (!row.allowed.empty()) {
        const View<const uint32_t, 1> mask(row.allowed.data(), {MaskWords(vocab)});
        row.allowed = {at(mask).data, row.allowed.size()};
      }
      row.scratch = &scratch[i];
      row.token = &tokens_[i];
      tokens_[i] = {7, 7, {{7, 7}}};  // as the last step left it
    }
    rows = rows_;
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  ~Run() {
    const auto width = static_cast<size_t>(out_.shape[1]), listed = (width - kFixed) / 2;
    std::vector<float> numbers;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const bool ok = rows_[i].error.ok();
      const Token token = ok ? tokens_[i] : Token{-1, 0, {}};
      numbers.push_back(static_cast<float>(rows_[i].error.code()));
      numbers.push_back(static_cast<float>(token.id));
      numbers.push_back(token.logprob);
      for (size_t j = 0; j < listed; ++j) {
        const bool has = j < token.top.size();
        numbers.push_back(has ? static_cast<float>(token.top[j].id) : -1);
        numbers.push_back(has ? std::max(token.top[j].logprob, kNever) : 0);
      }
    }
    if (!numbers.empty()) at_.Put(&out_(first_, 0), std::span<const float>(numbers));
  }

 private:
  std::vector<SampleRow> rows_;
  std::vector<Token> tokens_;
  const Place at_;
  const Outputs out_;
  const int64_t first_;
};

template <typename T>
std::span<const T> SpanOf(View<T, 1> v) {
  return {v.data, static_cast<size_t>(v.size())};
}

void FillLogits(const Shape& s, View<float, 2> logits, Random& random) {
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t i = 0; i < s.vocab; ++i) {
      double v = s.spread * random.Normal();
      if (s.fill == Fill::kWhole) v = std::round(v);
      if (s.fill == Fill::kEqual) v = -1.25;
      if (s.fill == Fill::kZeros) v = std::copysign(0, v);
      // Without the small ones together the first alone would do for kMostly.
      if (s.fill == Fill::kTwo) v = std::log(i == 9 ? 1 : i == 11 ? 0.1 : 0.048 / s.vocab);
      if (s.fill == Fill::kHoles && i % 8 != r % 8) v = -kInfinity;
      if (s.fill == Fill::kUnusable && r % 5 == 0) v = -kInfinity;
      logits(r, i) = static_cast<float>(v);
    }
    if (s.fill == Fill::kUnusable && r % 5 == 1) logits(r, s.vocab / 2) = NAN;
    if (s.fill == Fill::kUnusable && r % 5 == 2) logits(r, s.vocab - 1) = kInfinity;
  }
}

// Likely ids (every other one, from the best down) and ids from everywhere; ascending.
std::vector<int32_t> SomeIds(const std::vector<int32_t>& ranked, size_t most) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < most / 2 && 2 * i < ranked.size(); ++i) {
    ids.push_back(ranked[2 * i]);
    ids.push_back(static_cast<int32_t>(2 * i * ranked.size() / most));
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// The last word's bits beyond the vocabulary are as random as those of kHalf.
std::span<const uint32_t> MakeMask(Mask mask, const std::vector<int32_t>& ranked,
                                   CheckMemory& memory, Random& random) {
  if (mask == Mask::kAbsent) return {};
  const auto vocab = static_cast<int64_t>(ranked.size());
  const auto words = memory.Array<uint32_t, 1>("allowed", {MaskWords(vocab)}, Access::kRead);
  for (int64_t i = 0; i < words.size(); ++i) words(i) = static_cast<uint32_t>(random.Next());
  const auto set = [&](int32_t id, bool to) {
    const uint32_t bit = uint32_t{1} << id % 32;
    words(id / 32) = to ? words(id / 32) | bit : words(id / 32) & ~bit;
  };
  for (int32_t id = 0; mask != Mask::kHalf && id < vocab; ++id) set(id, mask == Mask::kMost);
  if (mask == Mask::kMost || mask == Mask::kFew) {
    for (const int32_t id : SomeIds(ranked, 12)) set(id, mask == Mask::kFew);
  }
  if (mask == Mask::kOne) set(ranked[ranked.size() / 2], true);
  return SpanOf(View<const uint32_t, 1>(words.data, words.shape));
}

SampleRow MakeRow(const Shape& s, int64_t r, View<float, 2> logits, CheckMemory& memory,
                  Random& random) {
  const Setting& setting = SettingOf(s, r);
  SampleRow row;
  row.logits = {&logits(r, 0), static_cast<size_t>(s.vocab)};
  row.temperature = setting.temperature;
  row.top_k = setting.top_k;
  row.top_p = setting.top_p;
  row.min_p = setting.min_p;
  row.repetition_penalty = setting.repetition;
  row.presence_penalty = setting.presence;
  row.frequency_penalty = setting.frequency;
  row.top_logprobs = setting.top_logprobs;
  row.seed = random.Next();
  row.index = static_cast<uint64_t>(random.Below(100000));

  if (!Usable(row.logits)) return row;
  const std::vector<int32_t> ranked = Ranked(row.logits);
  if (setting.repetition != 1 || setting.presence != 0 || setting.frequency != 0) {
    const std::vector<int32_t> ids = SomeIds(ranked, std::max<size_t>(60, ranked.size() / 8));
    const auto counts = memory.Array<TokenCount, 1>(
        "counts", {static_cast<int64_t>(ids.size())}, Access::kRead, [&](int64_t i) {
          return TokenCount{ids[i], static_cast<int32_t>(random.Below(4))};
        });
    row.counts = SpanOf(counts);
  } else {
    row.counts = SpanOf(memory.Array<TokenCount, 1>("counts", {3}, Access::kRead, [](int64_t) {
      return TokenCount{kWildId, 1};
    }));
  }
  if (setting.bias) {
    std::vector<int32_t> ids = SomeIds(ranked, 12);
    ids.push_back(ids.front());  // an id may come again
    std::reverse(ids.begin(), ids.end());
    row.bias = SpanOf(memory.Array<std::pair<int32_t, float>, 1>(
        "bias", {static_cast<int64_t>(ids.size())}, Access::kRead,
        [&](int64_t i) { return std::pair(ids[i], static_cast<float>(3 * random.Normal())); }));
  }
  std::vector<int32_t> banned;
  if (setting.banned) banned = SomeIds(ranked, 8);
  if (banned.size() == ranked.size()) banned.clear();
  if (!banned.empty()) banned.push_back(banned.front());
  if (s.fill == Fill::kUnusable && r % 5 == 3) banned = ranked;
  row.banned =
      SpanOf(memory.Array<int32_t, 1>("banned", {static_cast<int64_t>(banned.size())},
                                      Access::kRead, [&](int64_t i) { return banned[i]; }));
  row.allowed = MakeMask(setting.mask, ranked, memory, random);
  return row;
}

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory;
  const auto logits = memory.Array<float, 2>("logits", {s.rows, s.vocab}, Access::kRead);
  FillLogits(s, logits, random);
  std::vector<SampleRow> rows;
  for (int64_t r = 0; r < s.rows; ++r) rows.push_back(MakeRow(s, r, logits, memory, random));
  std::vector<Expected> expected(rows.size());
  c.pool().For(s.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) expected[r] = ExpectRow(&rows[r]);
  });
  const auto listed = static_cast<size_t>(RoomForListed(s));
  const int64_t width = kFixed + 2 * static_cast<int64_t>(listed);
  const Outputs out = memory.Array<float, 2>("outputs", {s.rows, width}, Access::kWrite);
  std::vector<SampleScratch> scratch(rows.size());  // kept from run to run, as the engine does

  const auto args = [&](const Place& at, int64_t part) {
    const std::span<const SampleRow> all = rows;
    if (part == kWhole) return Run(all, scratch, at, out, 0);
    return Run(all.subspan(static_cast<size_t>(part), 1), scratch, at, out, part);
  };
  Case k;
  k.name = s.name;
  k.parts = s.rows;
  k.alone = s.rows <= kMany / 5;
  k.waits = true;
  k.read = [&](const Place& at) {
    const Outputs numbers = at(out);
    return std::vector<double>(numbers.data, numbers.data + numbers.size());
  };
  k.expect = [&](Allowance a) {
    Expect want;
    for (const Expected& e : expected) {
      want.push_back({static_cast<double>(e.code)});
      want.push_back({static_cast<double>(e.id)});
      want.push_back(e.has_logprobs ? e.Of(e.logprob, s.vocab, a) : Approx());
      for (size_t j = 0; j < listed; ++j) {
        const bool has = j < e.top.size();
        want.push_back({has ? static_cast<double>(e.top[j].id) : -1});
        want.push_back(has ? e.Of(e.top[j].value, s.vocab, a) : Approx());
      }
    }
    return want;
  };
  k.cost.bytes = logits.size() * 4;
  k.cost.flops = logits.size();
  k.real = s.real;
  c.Run<SampleArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : kShapes) {
    if (c.Wants(s.name, s.real)) CheckShape(c, s);
  }
}

}  // namespace seacliff::sample
