// Reference row of compress.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/compress/op.h"
#include "kernels/rms_norm/op.h"

namespace seacliff::compress {
namespace {

// One sequence of the step.
struct Rows {
  const CompressArgs& a;
  int64_t first_token, first_position, slot, width;

  // k and g' of a position of this sequence, from the step or from the kept rows.
  double Key(int64_t position, int64_t column) const {
    if (position >= first_position) return a.keys(Token(position), column);
    return a.state(slot, StateRow(a.ratio, position), 0, column);
  }
  double Gate(int64_t position, int64_t column) const {
    if (position >= first_position) {
      return a.gates(Token(position), column) + a.ape(position % a.ratio, column);
    }
    return a.state(slot, StateRow(a.ratio, position), 1, column);
  }
  int64_t Token(int64_t position) const { return first_token + position - first_position; }
};

// The pooled vector of the block whose first token is at `begin`.
void Pool(const Rows& rows, int64_t begin, int64_t dim, float* out) {
  const int64_t ratio = rows.a.ratio, overlap = rows.width / dim;
  const int64_t from = std::max<int64_t>(0, begin - (overlap - 1) * ratio);
  const int64_t to = begin + ratio;
  for (int64_t i = 0; i < dim; ++i) {
    // A member of the block before gives its first half, one of the block itself its last.
    const auto column = [&](int64_t p) { return p < begin ? i : (overlap - 1) * dim + i; };
    double top = -INFINITY;
    for (int64_t p = from; p < to; ++p) top = std::max(top, rows.Gate(p, column(p)));
    double sum = 0, value = 0;
    for (int64_t p = from; p < to; ++p) {
      const double e = std::exp(rows.Gate(p, column(p)) - top);
      sum += e;
      value += e * rows.Key(p, column(p));
    }
    out[i] = static_cast<float>(value / sum);
  }
}

void Emit(Context& k, const CompressArgs& a, const Rows& rows, int64_t seq, int64_t block) {
  const int64_t dim = a.entries.dim, pairs = a.frequencies.shape[0];
  const bool index =
      a.entries.format == EntryFormat::kIndexFp4 || a.entries.format == EntryFormat::kIndexF32;
  const bool exact =
      a.entries.format == EntryFormat::kKvF32 || a.entries.format == EntryFormat::kIndexF32;
  const DType dtype = exact ? DType::kF32 : DType::kBf16;
  std::vector<float> v(static_cast<size_t>(dim)), memory(static_cast<size_t>(dim));
  const Act<2> act(memory.data(), dtype, {1, dim});
  const auto round = [&](float x) { return exact ? x : RoundToBf16(x); };

  Pool(rows, block * a.ratio, dim, v.data());
  for (int64_t i = 0; i < dim; ++i) act.Store(i, v[static_cast<size_t>(i)]);
  rms_norm::Ref(k, {act, a.weight, a.eps, act});
  for (int64_t i = 0; i < dim; ++i) v[static_cast<size_t>(i)] = act.Load(i);
  Rotate(v.data() + dim - 2 * pairs, pairs, a.frequencies.data, block * a.ratio, 1);
  if (index) {
    for (float& x : v) x = round(x);
    Hadamard(v.data(), dim);
  }
  for (float& x : v) x = round(x);

  const int32_t page = a.batch.compressed_pages(seq, block * a.ratio / kPageTokens);
  StoreEntry(a.entries, page, block % a.entries.page_len, v.data());
}

}  // namespace

void Ref(Context& k, const CompressArgs& a) {
  const int64_t width = a.ape.shape[1];
  for (int64_t s = 0; s < a.batch.seqs(); ++s) {
    const int64_t begin = a.batch.seq_begin(s), end = a.batch.seq_begin(s + 1);
    if (begin == end) continue;
    const int64_t first = a.batch.positions(begin), after = first + end - begin;
    const Rows rows{a, begin, first, a.batch.slots(s), width};

    const int64_t from = first / a.ratio, to = after / a.ratio;  // blocks finished by this step
    k.pool().For(to - from, 1, [&](int64_t b, int64_t e) {
      for (int64_t j = from + b; j < from + e; ++j) Emit(k, a, rows, s, j);
    });
    for (int64_t p = first; p < after; ++p) {
      if (!KeepsState(a.ratio, p, after - 1)) continue;
      const int64_t row = StateRow(a.ratio, p);
      for (int64_t c = 0; c < width; ++c) {
        a.state(rows.slot, row, 0, c) = a.keys(rows.Token(p), c);
        a.state(rows.slot, row, 1, c) = a.gates(rows.Token(p), c) + a.ape(p % a.ratio, c);
      }
    }
  }
}

}  // namespace seacliff::compress
