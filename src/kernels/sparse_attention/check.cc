// Cases, expectation and cost of sparse_attention.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/sparse_attention/op.h"

namespace seacliff::sparse_attention {
namespace {

struct Shape {
  std::string name;
  std::vector<CheckSequence> sequences;
  int64_t heads, dim, window_len, ratio;
  int64_t topk;  // 0: every visible block
  DType dtype = DType::kBf16;
  double query_magnitude = 1, sink_magnitude = 1;
  bool real = false;
};

std::vector<Shape> Shapes() {
  const std::vector<CheckSequence> ragged = {{0, 2}, {126, 3}, {60, 0}, {300, 1}};
  const auto bf16 = DType::kBf16, f32 = DType::kF32;
  return {
      {"window", ragged, 3, 192, 128, 0, 0},
      {"window, exact", ragged, 3, 192, 128, 0, 0, f32},
      {"head_dim 512", {{130, 1}}, 4, 512, 128, 0, 0},
      {"short window", {{0, 12}, {255, 3}}, 2, 128, 5, 0, 0},
      {"ratio 4, picks", ragged, 3, 192, 128, 4, 16},
      {"ratio 4, picks, exact", ragged, 3, 192, 128, 4, 16, f32},
      {"ratio 4, every block", {{30, 2}, {1, 1}}, 2, 128, 16, 4, 0},
      {"ratio 128", {{1000, 2}, {127, 2}, {5, 1}}, 3, 128, 128, 128, 0},
      {"ratio 128, exact", {{1000, 2}, {127, 2}, {5, 1}}, 3, 128, 128, 128, 0, f32},
      {"ratio 2, pages of 64", ragged, 3, 192, 128, 2, 24},
      {"ratio 64, pages of 2", {{1000, 2}, {63, 2}}, 3, 128, 128, 64, 0},
      {"sharp scores", {{200, 2}}, 2, 128, 128, 4, 16, bf16, 60},
      {"sharp scores, exact", {{200, 2}}, 2, 128, 128, 4, 16, f32, 60},
      {"sinks far above and below", {{10, 2}}, 4, 128, 128, 0, 0, bf16, 1, 1000},
      {"zero queries", {{10, 2}}, 2, 128, 128, 0, 0, bf16, 0},
      {"empty sequences only", {{10, 0}}, 2, 128, 128, 0, 0},
      {"33 heads, more tiles than one", {{299, 2}, {0, 1}}, 33, 128, 128, 4, 64},
      {"many tokens", {{0, 40}, {500, 3}}, 4, 128, 32, 4, 8},
      // More keys than a short list of pieces of fixed length would hold.
      {"ratio 4, 3,128 keys", {{12000, 1}}, 2, 128, 128, 4, 0},
      {"ratio 128, a million tokens", {{1048000, 1}, {90000, 1}}, 2, 128, 128, 128, 0},
      {"24 heads, two chunks", {{500, 270}, {30, 17}, {4, 2}}, 24, 512, 16, 4, 16},
      {"40 heads, two chunks", {{500, 270}, {30, 17}, {4, 2}}, 40, 512, 16, 4, 16},
  };
}

// The models' layers. Decoding: several sequences with one token each; prefill: a chunk.
std::vector<Shape> RealShapes(bool on_device) {
  const auto decode = [](int64_t seqs, int64_t context) {
    return std::vector<CheckSequence>(static_cast<size_t>(seqs), {context - 1, 1});
  };
  std::vector<Shape> shapes = {
      {"16 heads, decode of 1 at 4K", decode(1, 4096), 16, 512, 128, 4, 256},
      {"16 heads, chunk of 32 at 4K", {{4064, 32}}, 16, 512, 128, 4, 256},
      {"pro ratio 4, decode of 1 at 8K", decode(1, 8192), 128, 512, 128, 4, 1024},
  };
  const std::vector<int64_t> seqs =
      on_device ? std::vector<int64_t>{1, 8, 32, 128} : std::vector<int64_t>{1, 32};
  for (int64_t n : seqs) {
    const auto name = [&](const char* layer) {
      return fmt::format("flash {}, decode of {}", layer, n);
    };
    shapes.push_back({name("window"), decode(n, 4096), 64, 512, 128, 0, 0});
    shapes.push_back({name("ratio 4 at 16K"), decode(n, 16384), 64, 512, 128, 4, 512});
    shapes.push_back({name("ratio 128 at 64K"), decode(n, 65536), 64, 512, 128, 128, 0});
  }
  const std::vector<int64_t> chunks =
      on_device ? std::vector<int64_t>{1024, 4096, 8192} : std::vector<int64_t>{32};
  for (int64_t n : chunks) {
    shapes.push_back({fmt::format("flash ratio 4, chunk of {} at 64K", n),
                      {{65536 - n, n}},
                      64,
                      512,
                      128,
                      4,
                      512});
  }
  for (Shape& s : shapes) s.real = true;
  return shapes;
}

using Keys = std::vector<std::vector<double>>;  // decoded entries; the first dim numbers are values

// One head's output for one token.
Expect Head(const Expect& q, const Keys& keys, double sink, double scale, DType dtype,
            Allowance a) {
  const size_t dim = q.size();
  std::vector<Approx> scores;
  double top = -INFINITY;
  for (const auto& key : keys) {
    DotProduct dot;
    for (size_t i = 0; i < dim; ++i) dot.Add(q[i], key[i]);
    const Approx total = dot.Total(a);
    const double slack = total.slack + a.Step() * std::fabs(total.value);
    scores.push_back({total.value * scale, slack * scale});
    top = std::max(top, scores.back().value);
  }
  // Everything relative to the largest of the keys and the sink; the weights' bf16 rounding is
  // relative to the largest key.
  const double most = std::max(top, sink), lower = std::exp(top - most);
  double total = std::exp(sink - most), total_slack = total * a.Step();
  const double sum_error = a.Sum(static_cast<int64_t>(keys.size()));
  std::vector<double> value(dim), slack(dim), square(dim);
  for (size_t n = 0; n < keys.size(); ++n) {
    const double e = std::exp(scores[n].value - top);
    // The largest score's own error moves the whole softmax alike, sink apart.
    const double relative =
        2 * scores[n].slack + a.Step() * (1 + std::fabs(scores[n].value)) + sum_error;
    const Approx p = Round(Approx{e, e * relative}, dtype);
    total += e * lower;
    total_slack += e * lower * relative;
    for (size_t i = 0; i < dim; ++i) {
      const double v = lower * keys[n][i];
      value[i] += p.value * v;
      slack[i] += (p.slack + p.value * sum_error) * std::fabs(v);
      square[i] += p.value * v * p.value * v;
    }
  }
  Expect out;
  for (size_t i = 0; i < dim; ++i) {
    const double v = value[i] / total;
    double s = slack[i] / total + std::fabs(v) * total_slack / total;
    // Rows that round the weights relative to a running maximum differ in every one of them by up
    // to 2^-8 of it, independently: eight standard deviations of their sum.
    if (a.loose && dtype == DType::kBf16) s += 8 * 0x1p-8 * std::sqrt(square[i] / 3) / total;
    out.push_back(Round(Approx{v, s}, dtype));
  }
  return out;
}

struct Setup {
  CheckBatch batch;
  PagedView window, compressed;
  View<int32_t, 2> picks;
};

// As many blocks as there are places, ascending and at random distances.
void PickFrom(int64_t visible, View<int32_t, 1> picks, Random& random) {
  const int64_t count = picks.shape[0];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * visible / count, end = (i + 1) * visible / count;
    picks(i) = static_cast<int32_t>(begin + random.Below(end - begin));
  }
}

// Every entry of the pages, at real sizes.
void FillPages(CheckMemory& memory, const PagedView& view, Random& random) {
  memory.InPieces(view.pages, random, [&](int64_t page, Random& own) {
    for (int64_t i = 0; i < view.page_len; ++i) FillEntry(view, page, i, own);
  });
}

// Writes the entries that some query may read, and the picks.
void Fill(const Shape& s, const Setup& u, Random& random) {
  const Batch& b = u.batch.all;
  for (int64_t seq = 0; seq < b.seqs(); ++seq) {
    const auto [first, count] = s.sequences[seq];
    if (count == 0 || s.real) continue;
    for (int64_t p = std::max<int64_t>(0, first - s.window_len + 1); p < first + count; ++p) {
      FillEntry(u.window, b.window_pages(seq, p / kPageTokens), p % kPageTokens, random);
    }
    for (int64_t j = 0; s.ratio != 0 && s.topk == 0 && j < (first + count) / s.ratio; ++j) {
      const int64_t page = b.compressed_pages(seq, j * s.ratio / kPageTokens);
      FillEntry(u.compressed, page, j % u.compressed.page_len, random);
    }
  }
  for (int64_t t = 0; s.topk != 0 && t < b.tokens(); ++t) {
    const int64_t visible = (b.positions(t) + 1) / s.ratio;
    if (s.real && visible > s.topk) {
      PickFrom(visible, u.picks[t], random);
      continue;
    }
    // Ascending blocks, with unused places among them, not only at the end.
    int64_t place = 0;
    for (int64_t j = 0; j < visible && place < s.topk; ++j) {
      if (random.Below(8) == 0) u.picks(t, place++) = -1;
      if (place == s.topk) break;
      if (visible > s.topk && random.Below(visible) >= s.topk) continue;
      u.picks(t, place++) = static_cast<int32_t>(j);
      const int64_t page = b.compressed_pages(b.seq_of(t), j * s.ratio / kPageTokens);
      FillEntry(u.compressed, page, j % u.compressed.page_len, random);
    }
    while (place < s.topk) u.picks(t, place++) = -1;
  }
}

Keys KeysOf(const Shape& s, const Setup& u, int64_t t) {
  const Batch& b = u.batch.all;
  const int64_t position = b.positions(t), seq = b.seq_of(t);
  Keys keys;
  for (int64_t p = position; p >= 0 && p > position - s.window_len; --p) {
    const int64_t page = b.window_pages(seq, p / kPageTokens);
    keys.push_back(ReadEntry(u.window, page, p % kPageTokens));
  }
  const int64_t visible = s.ratio == 0 ? 0 : (position + 1) / s.ratio;
  for (int64_t j = 0; j < visible; ++j) {
    if (s.topk != 0) {
      const int32_t* row = &u.picks(t, 0);
      if (std::find(row, row + s.topk, j) == row + s.topk) continue;
    }
    const int64_t page = b.compressed_pages(seq, j * s.ratio / kPageTokens);
    keys.push_back(ReadEntry(u.compressed, page, j % u.compressed.page_len));
  }
  return keys;
}

// Entries that several tokens of a sequence read move once.
Cost CostOf(const Shape& s, const Setup& u) {
  const Batch& b = u.batch.all;
  Cost cost;
  for (int64_t seq = 0; seq < b.seqs(); ++seq) {
    const auto [first, count] = s.sequences[seq];
    if (count == 0) continue;
    const int64_t last = first + count - 1;
    int64_t entries = last - std::max<int64_t>(0, first - s.window_len + 1) + 1;
    std::vector<bool> read(static_cast<size_t>(s.ratio == 0 ? 0 : (last + 1) / s.ratio));
    for (int64_t t = b.seq_begin(seq); t < b.seq_begin(seq + 1); ++t) {
      const int64_t visible = s.ratio == 0 ? 0 : (b.positions(t) + 1) / s.ratio;
      int64_t keys = std::min<int64_t>(b.positions(t) + 1, s.window_len);
      if (s.topk == 0) {
        keys += visible;
        std::fill(read.begin(), read.begin() + visible, true);
      }
      for (int64_t i = 0; i < s.topk; ++i) {
        if (u.picks(t, i) < 0) continue;
        ++keys;
        read[u.picks(t, i)] = true;
      }
      cost.flops += 4 * s.heads * s.dim * keys;
    }
    entries += std::count(read.begin(), read.end(), true);
    cost.bytes += entries * EntryBytes(u.window.format, s.dim);
  }
  return cost;
}

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory(&c.pool());
  Setup u;
  u.batch = MakeBatch(memory, random, s.sequences, s.window_len, int64_t{1} << 40);
  const int64_t tokens = u.batch.all.tokens();
  const auto q = memory.Normals<3>("q", s.dtype, {tokens, s.heads, s.dim}, Access::kRead, random,
                                   s.query_magnitude);
  const auto sink = memory.Array<float, 1>("sink", {s.heads}, Access::kRead, [&](int64_t h) {
    return s.sink_magnitude * (h % 2 == 0 ? 1 : -1) * (0.5 + random.Uniform());
  });
  const auto frequencies = memory.Frequencies(160000);
  const auto format = s.dtype == DType::kF32 ? EntryFormat::kKvF32 : EntryFormat::kKvFp8;
  u.window =
      memory.Pages("window", format, s.dim, kPageTokens, u.batch.window_pages, Access::kRead);
  if (s.ratio != 0) {
    u.compressed = memory.Pages("compressed", format, s.dim, kPageTokens / s.ratio,
                                u.batch.compressed_pages, Access::kRead);
  }
  if (s.topk != 0) u.picks = memory.Array<int32_t, 2>("picks", {tokens, s.topk}, Access::kRead);
  const auto out = memory.Activations<3>("out", s.dtype, q.shape, Access::kWrite);
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.dim)));
  if (s.real) FillPages(memory, u.window, random);
  if (s.real && s.ratio != 0) FillPages(memory, u.compressed, random);
  Fill(s, u, random);

  const auto args = [=](const Place& at, int64_t part) {
    const int64_t begin = part == kWhole ? 0 : part, count = part == kWhole ? tokens : 1;
    View<const int32_t, 2> picks = at(u.picks);
    if (s.topk != 0) picks.data += begin * s.topk;
    picks.shape[0] = count;
    return SparseAttentionArgs{at(q).Rows(begin, count),
                               at(u.window),
                               s.window_len,
                               at(u.compressed),
                               s.ratio,
                               picks,
                               at(sink),
                               scale,
                               at(frequencies),
                               at(part == kWhole ? u.batch.all : u.batch.single[part]),
                               at(out).Rows(begin, count)};
  };
  const std::vector<int64_t> sample = TokensToCheck(tokens, s.real, random);
  Case k;
  k.name = s.name;
  k.parts = tokens;
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (int64_t t : sample) Append(all, Loaded(at(out).Rows(t, 1)));
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all;
    for (int64_t t : sample) {
      const Keys keys = KeysOf(s, u, t);
      for (int64_t h = 0; h < s.heads; ++h) {
        const Expect query = Values(q, (t * s.heads + h) * s.dim, s.dim);
        Expect o = Head(query, keys, sink(h), scale, s.dtype, a);
        RotateLast(o, frequencies, u.batch.all.positions(t), -1, a);
        Round(o, s.dtype);
        Append(all, o);
      }
    }
    return all;
  };
  k.cost = CostOf(s, u);
  k.cost.bytes += 2 * q.size() * SizeOf(s.dtype);
  k.real = s.real;
  c.Run<SparseAttentionArgs>(memory, k, args);
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

}  // namespace seacliff::sparse_attention
