// Cases, expectation and cost of index_topk.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/index_topk/op.h"

namespace seacliff::index_topk {
namespace {

struct Shape {
  std::string name;
  std::vector<CheckSequence> sequences;
  int64_t heads, dim, topk;
  DType dtype = DType::kBf16;
  bool same_keys = false;  // every key equal: ties everywhere
  bool real = false;
  bool margin = false;  // asked for
};

constexpr int64_t kRatio = 4;

std::vector<Shape> Shapes() {
  const std::vector<CheckSequence> ragged = {{0, 3}, {60, 5}, {300, 2}, {90, 0}, {126, 3}};
  return {
      {"ragged", ragged, 4, 128, 16},
      {"ragged, exact", ragged, 4, 128, 16, DType::kF32},
      {"odd heads, dim 64", {{500, 2}}, 3, 64, 7},
      {"ties", {{400, 3}}, 4, 64, 10, DType::kBf16, true},
      {"ties, exact", {{400, 3}}, 4, 64, 10, DType::kF32, true},
      {"one block more than topk", {{66, 3}}, 4, 128, 16},
      {"nothing to score", {{0, 67}}, 4, 128, 16},
      {"topk 1", {{1000, 2}}, 2, 128, 1},
      {"empty sequences only", {{9, 0}}, 4, 128, 16},
      {"margin", {{300, 40}, {5, 1}}, 4, 128, 16, DType::kBf16, false, false, true},
      {"margin, exact", {{300, 3}, {5, 1}}, 4, 128, 16, DType::kF32, false, false, true},
      {"margin, ties", {{300, 2}}, 4, 64, 16, DType::kBf16, true, false, true},
      {"many tokens", {{200, 70}, {5, 9}}, 18, 64, 16},
      // Tokens that share a group of them: of several sequences, scored and not.
      {"chunks of several sequences",
       {{300, 40}, {90, 3}, {2, 50}, {1190, 37}, {40, 0}, {1000, 1}},
       8,
       128,
       16},
      {"decode of several sequences",
       {{300, 1}, {1300, 1}, {20, 1}, {2047, 1}, {700, 1}},
       8,
       128,
       16},
      {"many ties", {{3000, 20}}, 4, 64, 100, DType::kBf16, true},
  };
}

// The models' layers. Decoding: several sequences with one token each; prefill: a chunk.
std::vector<Shape> RealShapes(bool on_device) {
  const auto decode = [](int64_t seqs, int64_t context) {
    return std::vector<CheckSequence>(static_cast<size_t>(seqs), {context - 1, 1});
  };
  std::vector<Shape> shapes = {
      {"16 heads, chunk of 32 at 8K", {{8160, 32}}, 16, 128, 256},
      {"pro, decode of 1 at 8K", decode(1, 8192), 64, 128, 1024},
      {"8 heads, decode of 1 at 250K", decode(1, 250004), 8, 128, 512},
  };
  const std::vector<int64_t> seqs =
      on_device ? std::vector<int64_t>{1, 8, 32} : std::vector<int64_t>{1};
  const std::vector<int64_t> chunks =
      on_device ? std::vector<int64_t>{1024} : std::vector<int64_t>{32};
  for (int64_t context : {8, 64}) {
    for (int64_t n : seqs) {
      shapes.push_back({fmt::format("flash, decode of {} at {}K", n, context),
                        decode(n, context * 1024), 64, 128, 512});
    }
    for (int64_t n : chunks) {
      shapes.push_back({fmt::format("flash, chunk of {} at {}K", n, context),
                        {{context * 1024 - n, n}},
                        64,
                        128,
                        512});
    }
  }
  if (on_device) shapes.push_back({"flash, chunk of 8192 at 64K", {{57344, 8192}}, 64, 128, 512});
  for (Shape& s : shapes) s.real = true;
  return shapes;
}

using Keys = std::vector<std::vector<double>>;  // by block, decoded

// The scores of token t as the official code rounds them.
Expect Scores(const Expect& q, const Expect& weights, const Keys& keys, DType dtype, Allowance a) {
  const auto heads = static_cast<int64_t>(weights.size());
  const int64_t dim = static_cast<int64_t>(q.size()) / heads;
  const double scale = 1 / std::sqrt(static_cast<double>(dim * heads));
  Expect scores;
  for (const auto& key : keys) {
    DotProduct sum;
    for (int64_t h = 0; h < heads; ++h) {
      DotProduct dot;
      for (int64_t i = 0; i < dim; ++i) dot.Add(q[h * dim + i], key[i]);
      Approx d = RoundOrNot(dot.Total(a), dtype, a);
      d.value = std::max(d.value, 0.0);
      const Approx w = RoundOrNot({weights[h].value * scale, 0}, dtype, a);
      const double slack = d.slack * (std::fabs(w.value) + w.slack) + d.value * w.slack;
      sum.Add(RoundOrNot({d.value * w.value, slack}, dtype, a), 1);
    }
    scores.push_back(RoundOrNot(sum.Total(a), dtype, a));
  }
  return scores;
}

// What is wrong with the picks of one token, or "".
std::string CheckPicks(View<const int32_t, 1> picks, int64_t visible, const Expect& scores,
                       const Keys& keys) {
  const int64_t topk = picks.shape[0], count = std::min(visible, topk);
  std::vector<bool> picked(static_cast<size_t>(visible));
  for (int64_t i = 0; i < topk; ++i) {
    const int64_t block = picks(i);
    if (i >= count) {
      if (block != -1) return fmt::format("pick {} is {}, not -1", i, block);
      continue;
    }
    if (block < 0 || block >= visible) return fmt::format("pick {} is block {}", i, block);
    if (i > 0 && block <= picks(i - 1)) return fmt::format("pick {} is not above the last", i);
    picked[block] = true;
  }
  if (visible <= topk) return "";
  for (int64_t in = 0; in < visible; ++in) {
    for (int64_t out = 0; picked[in] && out < visible; ++out) {
      if (picked[out]) continue;
      const Approx x = scores[in], y = scores[out];
      const double high = x.value + x.slack, low = y.value - y.slack;
      // The scores of equal keys are equal in every row.
      const bool equal = keys[in] == keys[out];
      if (high < low || ((high == low || equal) && out < in)) {
        return fmt::format("block {} (score {:.9g}) is picked, {} ({:.9g}) is not", in, x.value,
                           out, y.value);
      }
    }
  }
  return "";
}

// By how much the last pick beats the best block left out, as a part of the largest score.
std::string CheckMargin(double margin, Expect scores, int64_t topk) {
  if (scores.empty()) return std::isinf(margin) ? "" : "the margin is finite";
  double largest = 0, slack = 0;
  for (const Approx& s : scores) {
    largest = std::max(largest, std::fabs(s.value));
    slack = std::max(slack, s.slack);
  }
  std::sort(scores.begin(), scores.end(),
            [](const Approx& x, const Approx& y) { return x.value > y.value; });
  if (largest == 0) return margin == 0 ? "" : "the margin of no scores is not 0";
  const double want = (scores[topk - 1].value - scores[topk].value) / largest;
  if (std::fabs(margin - want) <= 4 * slack / largest + 1e-6) return "";
  return fmt::format("the margin is {:.9g}, not {:.9g}", margin, want);
}

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory(&c.pool());
  const CheckBatch batch = MakeBatch(memory, random, s.sequences, 128, int64_t{1} << 40);
  const int64_t tokens = batch.all.tokens();
  // Values that four bits can hold, as index_query leaves them.
  const auto q = memory.Activations<3>("q", s.dtype, {tokens, s.heads, s.dim}, Access::kRead);
  memory.InPieces(tokens, random, [&](int64_t t, Random& own) {
    const int64_t width = s.heads * s.dim;
    for (int64_t i = t * width; i < (t + 1) * width; ++i) {
      q.Store(i, static_cast<float>(own.Below(13)) * 0.5f - 3);
    }
  });
  const auto weights = memory.Activations<2>("weights", s.dtype, {tokens, s.heads}, Access::kRead,
                                             [&](int64_t) { return random.Normal(); });
  const auto format = s.dtype == DType::kF32 ? EntryFormat::kIndexF32 : EntryFormat::kIndexFp4;
  const PagedView entries = memory.Pages("entries", format, s.dim, kPageTokens / kRatio,
                                         batch.compressed_pages, Access::kRead);
  const auto picks = memory.Array<int32_t, 2>("picks", {tokens, s.topk}, Access::kWrite);
  View<float, 1> margin;
  if (s.margin) margin = memory.Array<float, 1>("margin", {tokens}, Access::kWrite);

  // Keys of blocks that some token of the sequence must score; the others stay poison.
  int64_t scored = 0, key_reads = 0;
  for (int64_t seq = 0; seq < batch.all.seqs(); ++seq) {
    const auto [first, count] = s.sequences[seq];
    const int64_t visible = (first + count) / kRatio;
    if (count == 0 || visible <= s.topk) continue;
    for (int64_t j = 0; j < visible; ++j) {
      const int64_t page = batch.all.compressed_pages(seq, j * kRatio / kPageTokens);
      Random key_random = s.same_keys ? Random(7) : Random(random.Next());
      FillEntry(entries, page, j % entries.page_len, key_random);
    }
    for (int64_t p = first; p < first + count; ++p) {
      if ((p + 1) / kRatio > s.topk) scored += (p + 1) / kRatio;
    }
    key_reads += visible;
  }
  const auto keys_of = [=](int64_t t, int64_t visible) {
    Keys keys;
    for (int64_t j = 0; j < visible; ++j) {
      const int64_t page =
          batch.all.compressed_pages(batch.all.seq_of(t), j * kRatio / kPageTokens);
      keys.push_back(ReadEntry(entries, page, j % entries.page_len));
    }
    return keys;
  };
  const std::vector<int64_t> sample = TokensToCheck(tokens, s.real, random);

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? tokens : 1;
    View<int32_t, 2> rows = at(picks);
    rows.data += begin * s.topk;
    rows.shape[0] = count;
    View<float, 1> margin_rows = at(margin);
    if (s.margin) margin_rows.data += begin;
    margin_rows.shape[0] = count;
    return IndexTopkArgs{at(q).Rows(begin, count),
                         at(weights).Rows(begin, count),
                         kRatio,
                         at(part == kWhole ? batch.all : batch.single[part]),
                         at(entries),
                         rows,
                         margin_rows};
  };
  Case k;
  k.name = s.name;
  k.parts = tokens;
  const auto verify = [=](const Place& at, Allowance a, int64_t t) {
    const int64_t visible = (batch.all.positions(t) + 1) / kRatio;
    Expect scores;
    Keys seen;
    if (visible > s.topk) {
      seen = keys_of(t, visible);
      scores = Scores(Values(q, t * s.heads * s.dim, s.heads * s.dim),
                      Values(weights, t * s.heads, s.heads), seen, s.dtype, a);
    }
    std::string wrong = CheckPicks(at(picks)[t], visible, scores, seen);
    // Only ref owes a margin.
    if (wrong.empty() && s.margin && !a.loose) {
      wrong = CheckMargin(at(margin)(t), scores, s.topk);
    }
    return wrong.empty() ? wrong : fmt::format("token {}: {}", t, wrong);
  };
  k.verify = [=, pool = &c.pool()](const Place& at, Allowance a) {
    std::vector<std::string> wrong(sample.size());
    pool->For(static_cast<int64_t>(sample.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) wrong[i] = verify(at, a, sample[i]);
    });
    const auto first =
        std::find_if(wrong.begin(), wrong.end(), [](const auto& w) { return !w.empty(); });
    return first == wrong.end() ? std::string() : *first;
  };
  k.cost.bytes = key_reads * EntryBytes(format, s.dim) + q.size() * SizeOf(s.dtype) +
                 weights.size() * SizeOf(s.dtype) + picks.size() * 4;
  k.cost.flops = scored * s.heads * (2 * s.dim + 3);
  k.real = s.real;
  c.Run<IndexTopkArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : Shapes()) {
    if (c.Wants(s.name, s.real)) CheckShape(c, s);
  }
  for (const Shape& s : RealShapes(c.on_device())) {
    if (c.Wants(s.name, s.real)) CheckShape(c, s);
  }
}

}  // namespace seacliff::index_topk
