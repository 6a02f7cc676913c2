// Cases, expectation and cost of compress.
#include <algorithm>
#include <cmath>

#include "kernels/check_table.h"
#include "kernels/compress/op.h"

namespace seacliff::compress {
namespace {

struct Shape {
  const char* name;
  int64_t ratio, dim;
  EntryFormat format;
  std::vector<Sequence> sequences;
  double gate_magnitude = 1;
  bool real = false;
};

constexpr float kEps = 1e-6f;

std::vector<Shape> Shapes() {
  const auto kv = EntryFormat::kKvFp8, index = EntryFormat::kIndexFp4;
  const auto kv_exact = EntryFormat::kKvF32, index_exact = EntryFormat::kIndexF32;
  // A first block, chunks that begin and end inside blocks, across pages, and no block at all.
  const std::vector<Sequence> ragged = {{0, 9}, {5, 1}, {7, 1}, {126, 7}, {30, 0}, {400, 2}};
  const std::vector<Sequence> rare = {{0, 128}, {100, 60}, {255, 1}, {120, 7}, {300, 0}};
  return {
      {"ratio 4", 4, 192, kv, ragged},
      {"ratio 4, exact", 4, 192, kv_exact, ragged},
      {"ratio 4, index keys", 4, 128, index, ragged},
      {"ratio 4, index keys, exact", 4, 128, index_exact, ragged},
      {"ratio 128", 128, 128, kv, rare},
      {"ratio 128, exact", 128, 128, kv_exact, rare},
      {"two blocks of 128", 128, 64, kv_exact, {{60, 200}}},
      {"sharp gates", 4, 128, kv, {{3, 10}}, 60},
      {"far", 4, 128, index, {{1048571, 5}}},
      {"empty sequences only", 4, 128, kv, {{3, 0}, {8, 0}}},
      {"flash ratio 4, 1 token", 4, 512, kv, {{4095, 1}}, 1, true},
      {"flash ratio 4, 256 tokens", 4, 512, kv, {{4093, 256}}, 1, true},
      {"flash index keys, 256 tokens", 4, 128, index, {{4093, 256}}, 1, true},
      {"flash ratio 128, 1 token", 128, 512, kv, {{4095, 1}}, 1, true},
      {"flash ratio 128, 256 tokens", 128, 512, kv, {{4000, 256}}, 1, true},
  };
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

void CheckShape(Checker& c, const Shape& s) {
  Random random = c.NewRandom(s.name);
  CheckMemory memory;
  const CheckBatch batch = MakeBatch(memory, random, s.sequences, 128, 0);
  const Batch& b = batch.all;
  const int64_t tokens = b.tokens(), overlap = s.ratio == 4 ? 2 : 1, width = overlap * s.dim;
  const int64_t state_rows = overlap * s.ratio;
  const bool index = s.format == EntryFormat::kIndexFp4 || s.format == EntryFormat::kIndexF32;
  const bool exact = s.format == EntryFormat::kKvF32 || s.format == EntryFormat::kIndexF32;
  const DType dtype = exact ? DType::kF32 : DType::kBf16;

  // Keys and gates lie side by side, with poison between the rows.
  const int64_t stride = 2 * width + 5;
  View<float, 2> keys =
      memory.Array<float, 2>("rows", {std::max<int64_t>(tokens, 1), stride}, Access::kRead);
  keys.shape[0] = tokens;
  View<float, 2> gates = keys;
  gates.data += width;
  keys.shape[1] = gates.shape[1] = width;
  const auto ape = memory.Array<float, 2>("ape", {s.ratio, width}, Access::kRead,
                                          [&](int64_t) { return random.Normal(); });
  const auto weight = memory.NormWeights(s.dim, random);
  const auto frequencies = memory.Frequencies(160000);
  const auto state =
      memory.Array<float, 4>("state", {batch.slots, state_rows, 2, width}, Access::kUpdate);
  const PagedView entries = memory.Pages("entries", s.format, s.dim, kPageTokens / s.ratio,
                                         batch.compressed_pages, Access::kUpdate);

  std::vector<History> histories;
  std::vector<Entry> emitted;
  for (int64_t seq = 0; seq < b.seqs(); ++seq) {
    const auto [first, count] = s.sequences[seq];
    const int64_t slot = b.slots(seq), from = first / s.ratio, to = (first + count) / s.ratio;
    History h;
    // Only finished blocks may read kept rows: where there is none they stay poison.
    h.first = std::max<int64_t>(0, (from - overlap + 1) * s.ratio);
    for (int64_t p = h.first; p < first + count; ++p) {
      std::vector<Approx> k(width), g(width);
      for (int64_t i = 0; i < width; ++i) {
        const auto key = static_cast<float>(random.Normal());
        const auto gate = static_cast<float>(s.gate_magnitude * random.Normal());
        k[i] = {key, 0};
        if (p >= first) {
          const int64_t t = b.seq_begin(seq) + p - first;
          keys(t, i) = key;
          gates(t, i) = gate;
          const double sum = static_cast<double>(gate) + ape(p % s.ratio, i);
          g[i] = {sum, std::fabs(sum) * 0x1p-23};
        } else if (to > from) {
          state(slot, p % state_rows, 0, i) = key;
          state(slot, p % state_rows, 1, i) = gate;
          g[i] = {gate, 0};
        }
      }
      h.k.push_back(std::move(k));
      h.g.push_back(std::move(g));
    }
    for (int64_t p = std::max(first, first + count - state_rows); p < first + count; ++p) {
      memory.MayWrite(&state(slot, p % state_rows, 0, 0), 2 * width * 4);
    }
    for (int64_t j = from; j < to; ++j) {
      const int64_t page = b.compressed_pages(seq, j * s.ratio / kPageTokens);
      emitted.push_back({seq, j, page, j % entries.page_len});
      memory.MayWriteEntry(entries, page, j % entries.page_len);
    }
    histories.push_back(std::move(h));
  }

  const auto args = [=](const Place& at, int64_t part) {
    const auto cut = [&](View<float, 2> v) {
      View<const float, 2> rows = at(v);
      if (part == kWhole) return rows;
      rows.data += part * rows.stride[0];
      rows.shape[0] = 1;
      return rows;
    };
    return CompressArgs{
        cut(keys),       cut(gates), at(ape), at(weight),
        at(frequencies), kEps,       s.ratio, at(part == kWhole ? batch.all : batch.single[part]),
        at(state),       at(entries)};
  };
  Case k;
  k.name = s.name;
  k.parts = tokens;
  // The entries, then the kept rows.
  k.read = [=](const Place& at) {
    std::vector<double> all;
    for (const Entry& e : emitted) {
      const std::vector<double> entry = ReadEntry(at(entries), e.page, e.slot);
      all.insert(all.end(), entry.begin(), entry.end());
    }
    for (int64_t seq = 0; seq < batch.all.seqs(); ++seq) {
      const auto [first, count] = s.sequences[seq];
      for (int64_t p = std::max(first, first + count - state_rows); p < first + count; ++p) {
        const float* row = &at(state)(batch.all.slots(seq), p % state_rows, 0, 0);
        all.insert(all.end(), row, row + 2 * width);
      }
    }
    return all;
  };
  k.expect = [=](Allowance a) {
    Expect all;
    for (const Entry& e : emitted) {
      const History& h = histories[e.seq];
      const int64_t begin = e.block * s.ratio, end = begin + s.ratio;
      const int64_t from = std::max<int64_t>(0, begin - (overlap - 1) * s.ratio);
      Expect v;
      for (int64_t i = 0; i < s.dim; ++i) v.push_back(PoolColumn(h, from, end, begin, s.dim, i, a));
      Round(v, dtype);
      RmsNorm(v, weight, kEps, a);
      Round(v, dtype);
      RotateLast(v, frequencies, begin, 1, a);
      Round(v, dtype);
      if (index) HadamardTransform(v);
      if (index) Round(v, dtype);
      Append(all, EntryOf(s.format, v));
    }
    for (int64_t seq = 0; seq < batch.all.seqs(); ++seq) {
      const auto [first, count] = s.sequences[seq];
      for (int64_t p = std::max(first, first + count - state_rows); p < first + count; ++p) {
        Append(all, histories[seq].k[p - histories[seq].first]);
        Append(all, histories[seq].g[p - histories[seq].first]);
      }
    }
    return all;
  };
  const auto blocks = static_cast<int64_t>(emitted.size());
  k.cost.bytes = 2 * tokens * width * 4 + std::min(tokens, state_rows) * 2 * width * 4 +
                 blocks * EntryBytes(s.format, s.dim);
  k.cost.flops = blocks * s.dim * (overlap * s.ratio * 5 + 8);
  k.real = s.real;
  c.Run<CompressArgs>(memory, k, args);
}

}  // namespace

void Check(Checker& c) {
  for (const Shape& s : Shapes()) {
    if (!s.real || c.full()) CheckShape(c, s);
  }
}

}  // namespace seacliff::compress
