// Cases, expectation and cost of compress.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/check_table.h"
#include "kernels/compress/op.h"
#include "kernels/fused/check_parts.h"

namespace seacliff::compress {
namespace {

struct Shape {
  std::string name;
  int64_t ratio, dim;
  EntryFormat format;
  std::vector<CheckSequence> sequences;
  double gate_magnitude = 1;
  bool real = false;
};

constexpr float kEps = 1e-6f;

std::vector<Shape> Shapes() {
  const auto kv = EntryFormat::kKvFp8, index = EntryFormat::kIndexFp4;
  const auto kv_exact = EntryFormat::kKvF32, index_exact = EntryFormat::kIndexF32;
  // A first block, chunks that begin and end inside blocks, across pages, and no block at all.
  const std::vector<CheckSequence> ragged = {{0, 9}, {5, 1}, {7, 1}, {126, 7}, {30, 0}, {400, 2}};
  const std::vector<CheckSequence> rare = {{0, 128}, {100, 60}, {255, 1}, {120, 7}, {300, 0}};
  return {
      {"ratio 4", 4, 192, kv, ragged},
      {"ratio 4, exact", 4, 192, kv_exact, ragged},
      {"ratio 4, index keys", 4, 128, index, ragged},
      {"ratio 4, index keys, exact", 4, 128, index_exact, ragged},
      {"ratio 128", 128, 128, kv, rare},
      {"ratio 128, exact", 128, 128, kv_exact, rare},
      {"two blocks of 128", 128, 64, kv_exact, {{60, 200}}},
      {"ratio 128, dim 512", 128, 512, kv, {{127, 1}, {383, 2}, {5, 1}}},
      {"ratio 4, dim 512", 4, 512, kv, {{3, 1}, {7, 1}, {12, 1}, {1, 6}, {4091, 1}}},
      {"ratio 4, long chunk", 4, 128, index, {{2, 75}, {61, 33}}},
      // The last block of a page has a place of its own, for two pages.
      {"ratio 4, page ends", 4, 128, index, {{120, 20}, {128, 4}, {254, 3}, {383, 2}}},
      {"ratio 4, three pages", 4, 128, kv, {{100, 420}, {127, 258}}},
      {"sharp gates", 4, 128, kv, {{3, 10}}, 60},
      {"far", 4, 128, index, {{1048571, 5}}},
      {"empty sequences only", 4, 128, kv, {{3, 0}, {8, 0}}},
  };
}

// The models' layers; every decoded token ends a block.
std::vector<Shape> RealShapes(std::span<const int64_t> counts) {
  std::vector<Shape> shapes;
  for (int64_t n : counts) {
    const std::vector<CheckSequence> sequences = RealSequences(n, 65535);
    shapes.push_back({NameOf("flash ratio 4", n), 4, 512, EntryFormat::kKvFp8, sequences});
    shapes.push_back({NameOf("flash index keys", n), 4, 128, EntryFormat::kIndexFp4, sequences});
    shapes.push_back({NameOf("flash ratio 128", n), 128, 512, EntryFormat::kKvFp8, sequences});
  }
  for (Shape& s : shapes) s.real = true;
  return shapes;
}

struct Entry {
  int64_t seq, block, page, slot;
};

// k and g' of one sequence from the first position that a block of the step needs.
struct History {
  int64_t first = 0;
  std::vector<std::vector<Approx>> k, g;  // [position - first][column]
};

Approx PoolColumn(const History& h, int64_t from, int64_t to, int64_t begin, int64_t dim,
                  int64_t column, Allowance a) {
  const auto at = [&](const std::vector<std::vector<Approx>>& rows, int64_t p) {
    // The block before gives its first half, the block itself the second if there are two.
    const auto& row = rows[p - h.first];
    return row[p < begin || static_cast<int64_t>(row.size()) == dim ? column : dim + column];
  };
  double top = -1e300;
  for (int64_t p = from; p < to; ++p) top = std::max(top, at(h.g, p).value);
  double total = 0, value = 0, slack = 0, total_slack = 0;
  for (int64_t p = from; p < to; ++p) {
    const Approx gate = at(h.g, p);
    const double e = std::exp(gate.value - top), key = at(h.k, p).value;
    const double relative = gate.slack + a.Step() * (1 + top - gate.value) + a.Sum(to - from);
    total += e;
    value += e * key;
    total_slack += e * relative;
    slack += e * relative * std::fabs(key);
  }
  return {value / total, (slack + std::fabs(value / total) * total_slack) / total};
}

// The arguments of a case, and what its blocks are made of.
struct Setup {
  CheckBatch batch;
  int64_t overlap, width;
  View<float, 2> keys, gates;
  View<float, 2> ape;
  View<const Bf16, 1> weight;
  View<const float, 1> frequencies;
  View<float, 4> state;
  PagedView entries;
  std::vector<History> histories;  // one a sequence
  std::vector<Entry> emitted;
};

// Positions of a sequence whose rows the step leaves in the state: the last one of each place.
std::vector<int64_t> Kept(const CheckSequence& q, int64_t ratio) {
  std::vector<int64_t> kept;
  for (int64_t p = q.first; p < q.first + q.count; ++p) {
    const int64_t place = StateRow(ratio, p);
    std::erase_if(kept, [&](int64_t other) { return StateRow(ratio, other) == place; });
    kept.push_back(p);
  }
  return kept;
}

// Makes a sequence's past and its tokens of the step, and notes what may be written.
void FillSequence(CheckMemory& memory, Random& random, const Shape& s, int64_t seq, Setup& u) {
  const Batch& b = u.batch.all;
  const auto [first, count] = s.sequences[seq];
  const int64_t slot = b.slots(seq), from = first / s.ratio, to = (first + count) / s.ratio;
  History h;
  // Only finished blocks may read kept rows: where there is none they stay poison.
  h.first = std::max<int64_t>(0, (from - u.overlap + 1) * s.ratio);
  for (int64_t p = h.first; p < first + count; ++p) {
    std::vector<Approx> k(u.width), g(u.width);
    for (int64_t i = 0; i < u.width; ++i) {
      const auto key = static_cast<float>(random.Normal());
      const auto gate = static_cast<float>(s.gate_magnitude * random.Normal());
      k[i] = {key, 0};
      if (p >= first) {
        const int64_t t = b.seq_begin(seq) + p - first;
        u.keys(t, i) = key;
        u.gates(t, i) = gate;
        const double sum = static_cast<double>(gate) + u.ape(p % s.ratio, i);
        g[i] = {sum, std::fabs(sum) * 0x1p-23};
      } else if (to > from) {
        u.state(slot, StateRow(s.ratio, p), 0, i) = key;
        u.state(slot, StateRow(s.ratio, p), 1, i) = gate;
        g[i] = {gate, 0};
      }
    }
    h.k.push_back(std::move(k));
    h.g.push_back(std::move(g));
  }
  for (const int64_t p : Kept(s.sequences[seq], s.ratio)) {
    memory.MayWrite(&u.state(slot, StateRow(s.ratio, p), 0, 0), 2 * u.width * 4);
  }
  for (int64_t j = from; j < to; ++j) {
    const int64_t page = b.compressed_pages(seq, j * s.ratio / kPageTokens);
    u.emitted.push_back({seq, j, page, j % u.entries.page_len});
    memory.MayWriteEntry(u.entries, page, j % u.entries.page_len);
  }
  u.histories.push_back(std::move(h));
}

Setup MakeSetup(CheckMemory& memory, Random& random, const Shape& s) {
  Setup u;
  u.batch = MakeBatch(memory, random, s.sequences, 128, 0);
  u.overlap = s.ratio == 4 ? 2 : 1;
  u.width = u.overlap * s.dim;
  // Keys and gates lie side by side, with poison between the rows.
  const int64_t tokens = u.batch.all.tokens(), stride = 2 * u.width + 5;
  u.keys = memory.Array<float, 2>("rows", {std::max<int64_t>(tokens, 1), stride}, Access::kRead);
  u.gates = u.keys;
  u.gates.data += u.width;
  u.keys.shape = u.gates.shape = {tokens, u.width};
  u.ape = memory.Array<float, 2>("ape", {s.ratio, u.width}, Access::kRead,
                                 [&](int64_t) { return random.Normal(); });
  u.weight = memory.NormWeights(s.dim, random);
  u.frequencies = memory.Frequencies(160000);
  u.state = memory.Array<float, 4>("state", {u.batch.slots, StateRows(s.ratio), 2, u.width},
                                   Access::kUpdate);
  u.entries = memory.Pages("entries", s.format, s.dim, kPageTokens / s.ratio,
                           u.batch.compressed_pages, Access::kUpdate);
  for (int64_t seq = 0; seq < u.batch.all.seqs(); ++seq) FillSequence(memory, random, s, seq, u);
  return u;
}

CompressArgs ArgsOf(const Shape& s, const Setup& u, const Place& at, int64_t part) {
  const auto cut = [&](View<float, 2> v) {
    View<const float, 2> rows = at(v);
    if (part == kWhole) return rows;
    rows.data += part * rows.stride[0];
    rows.shape[0] = 1;
    return rows;
  };
  const Batch& batch = part == kWhole ? u.batch.all : u.batch.single[part];
  return {cut(u.keys), cut(u.gates), at(u.ape), at(u.weight), at(u.frequencies),
          kEps,        s.ratio,      at(batch), at(u.state),  at(u.entries)};
}

// The entries, then the kept rows.
std::vector<double> Read(const Shape& s, const Setup& u, const Place& at) {
  std::vector<double> all;
  for (const Entry& e : u.emitted) {
    const std::vector<double> entry = ReadEntry(at(u.entries), e.page, e.slot);
    all.insert(all.end(), entry.begin(), entry.end());
  }
  for (int64_t seq = 0; seq < u.batch.all.seqs(); ++seq) {
    for (const int64_t p : Kept(s.sequences[seq], s.ratio)) {
      const float* row = &at(u.state)(u.batch.all.slots(seq), StateRow(s.ratio, p), 0, 0);
      all.insert(all.end(), row, row + 2 * u.width);
    }
  }
  return all;
}

Expect Expected(const Shape& s, const Setup& u, Allowance a) {
  const bool index = s.format == EntryFormat::kIndexFp4 || s.format == EntryFormat::kIndexF32;
  const bool exact = s.format == EntryFormat::kKvF32 || s.format == EntryFormat::kIndexF32;
  const DType dtype = exact ? DType::kF32 : DType::kBf16;
  Expect all;
  for (const Entry& e : u.emitted) {
    const History& h = u.histories[e.seq];
    const int64_t begin = e.block * s.ratio, end = begin + s.ratio;
    const int64_t from = std::max<int64_t>(0, begin - (u.overlap - 1) * s.ratio);
    Expect v;
    for (int64_t i = 0; i < s.dim; ++i) v.push_back(PoolColumn(h, from, end, begin, s.dim, i, a));
    Round(v, dtype);
    RmsNorm(v, u.weight, kEps, a);
    Round(v, dtype);
    RotateLast(v, u.frequencies, begin, 1, a);
    Round(v, dtype);
    if (index) HadamardTransform(v);
    if (index) Round(v, dtype);
    Append(all, EntryOf(s.format, v));
  }
  for (int64_t seq = 0; seq < u.batch.all.seqs(); ++seq) {
    const History& h = u.histories[seq];
    for (const int64_t p : Kept(s.sequences[seq], s.ratio)) {
      Append(all, h.k[p - h.first]);
      Append(all, h.g[p - h.first]);
    }
  }
  return all;
}

Prepared<CompressArgs> Prepare(CheckMemory& memory, Random& random, const Shape& s) {
  const auto setup = std::make_shared<const Setup>(MakeSetup(memory, random, s));
  const Setup& u = *setup;
  const int64_t tokens = u.batch.all.tokens();
  const auto blocks = static_cast<int64_t>(u.emitted.size());
  Case k;
  k.parts = tokens;
  k.read = [s, setup](const Place& at) { return Read(s, *setup, at); };
  k.expect = [s, setup](Allowance a) { return Expected(s, *setup, a); };
  // The step's rows and those it leaves in the state; of older rows the half that a block pools.
  int64_t rows = tokens, halves = 0;
  for (int64_t seq = 0; seq < u.batch.all.seqs(); ++seq) {
    const auto [first, count] = s.sequences[seq];
    rows += static_cast<int64_t>(Kept(s.sequences[seq], s.ratio).size());
    if ((first + count) / s.ratio > first / s.ratio) halves += first - u.histories[seq].first;
  }
  k.cost.bytes = (rows * u.width + halves * s.dim) * 2 * 4 + blocks * EntryBytes(s.format, s.dim);
  k.cost.flops = blocks * s.dim * (u.overlap * s.ratio * 5 + 8);
  return {k, [s, setup](const Place& at, int64_t part) { return ArgsOf(s, *setup, at, part); }};
}

}  // namespace

Prepared<CompressArgs> PreparePart(CheckMemory& memory, Random& random, int64_t ratio,
                                   EntryFormat format, const PartShape& s) {
  return Prepare(memory, random, {"", ratio, s.dim, format, s.sequences, 1, s.real});
}

void Check(Checker& c) {
  for (const Shape& s : Shapes()) c.Run(s, s.name, Prepare);
  for (const Shape& s : RealShapes(c.RealTokens())) c.Run(s, s.name, Prepare);
}

}  // namespace seacliff::compress
