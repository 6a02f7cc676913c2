// cpu row of compress.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/compress/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/attention-inl.h"
#include "kernels/compress/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::compress {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

// A token of a block: its columns of k, of g, and of what is still to be added to g.
struct Member {
  const float* key;
  const float* gate;
  const float* ape;
};

// One sequence of the step.
struct Rows {
  const CompressArgs& a;
  int64_t first_token, first_position, slot, dim;
  const float* zeros;  // [width], stands for the ape of kept rows, which hold it already

  // The token at `position` with its columns from `column` on.
  Member At(int64_t position, int64_t column) const {
    if (position >= first_position) {
      const int64_t token = first_token + position - first_position;
      return {&a.keys(token, column), &a.gates(token, column), &a.ape(position % a.ratio, column)};
    }
    const int64_t row = StateRow(a.ratio, position);
    return {&a.state(slot, row, 0, column), &a.state(slot, row, 1, column), zeros};
  }
};

// The members of the block whose first token is at `begin`, in order.
void List(const Rows& rows, int64_t begin, std::vector<Member>& members) {
  const int64_t ratio = rows.a.ratio, last = rows.a.ape.shape[1] - rows.dim;
  members.clear();
  // A member of the block before gives its first half, one of the block itself its last.
  if (last > 0) {
    for (int64_t p = std::max<int64_t>(0, begin - ratio); p < begin; ++p) {
      members.push_back(rows.At(p, 0));
    }
  }
  for (int64_t p = begin; p < begin + ratio; ++p) members.push_back(rows.At(p, last));
}

// Memory of one thread for its blocks.
struct Work {
  explicit Work(int64_t dim)
      : pooled(static_cast<size_t>(dim)),
        v(static_cast<size_t>(dim)),
        tops(static_cast<size_t>(dim)),
        sums(static_cast<size_t>(dim)) {}

  std::vector<Member> members;
  std::vector<Bf16> pooled;
  std::vector<float> v, tops, sums;
};

HWY_INLINE VF Gate(const Member& m, int64_t i) {
  return hn::Add(hn::LoadU(kF32, m.gate + i), hn::LoadU(kF32, m.ape + i));
}

// Member by member, not column by column: rows are some power of two apart, so that the lines of a
// column would push each other out of the cache.
void Pool(int64_t dim, Work& w) {
  std::fill(w.tops.begin(), w.tops.end(), -INFINITY);
  std::fill(w.sums.begin(), w.sums.end(), 0.0f);
  std::fill(w.v.begin(), w.v.end(), 0.0f);
  float *tops = w.tops.data(), *sums = w.sums.data(), *values = w.v.data();
  for (const Member& m : w.members) {
    for (int64_t i = 0; i < dim; i += Lanes()) {
      hn::StoreU(hn::Max(hn::LoadU(kF32, tops + i), Gate(m, i)), kF32, tops + i);
    }
  }
  for (const Member& m : w.members) {
    for (int64_t i = 0; i < dim; i += Lanes()) {
      const VF e = hn::Exp(kF32, hn::Sub(Gate(m, i), hn::LoadU(kF32, tops + i)));
      const VF value = hn::MulAdd(e, hn::LoadU(kF32, m.key + i), hn::LoadU(kF32, values + i));
      hn::StoreU(hn::Add(hn::LoadU(kF32, sums + i), e), kF32, sums + i);
      hn::StoreU(value, kF32, values + i);
    }
  }
  for (int64_t i = 0; i < dim; i += Lanes()) {
    const VF value = hn::Div(hn::LoadU(kF32, values + i), hn::LoadU(kF32, sums + i));
    StoreBf16(value, w.pooled.data() + i);
  }
}

void Emit(const Rows& rows, int64_t seq, int64_t block, Work& w) {
  const CompressArgs& a = rows.a;
  const int64_t dim = rows.dim, position = block * a.ratio;
  List(rows, position, w.members);
  Pool(dim, w);
  float* v = w.v.data();
  NormRow(w.pooled.data(), a.weight.data, dim, a.eps, w.pooled.data());
  LoadRow(w.pooled.data(), dim, v);
  Rotation(a.frequencies.data, position, 1).Apply(v + dim - kRotated);
  RoundRow(v + dim - kRotated, kRotated);

  const int64_t page = a.batch.compressed_pages(seq, position / kPageTokens);
  const int64_t slot = block % a.entries.page_len;
  if (a.entries.format == EntryFormat::kKvFp8) return StoreKvEntry(a.entries, page, slot, v);
  Hadamard(v, dim);
  RoundRow(v, dim);
  StoreIndexEntry(a.entries, page, slot, v);
}

// Leaves the last rows of the step for later blocks.
void Keep(const Rows& rows, int64_t after) {
  const CompressArgs& a = rows.a;
  const int64_t width = a.ape.shape[1];
  for (int64_t p = rows.first_position; p < after; ++p) {
    if (!KeepsState(a.ratio, p, after - 1)) continue;
    const Member m = rows.At(p, 0);
    float* key = &a.state(rows.slot, StateRow(a.ratio, p), 0, 0);
    float* gate = &a.state(rows.slot, StateRow(a.ratio, p), 1, 0);
    for (int64_t c = 0; c < width; c += Lanes()) {
      hn::StoreU(hn::LoadU(kF32, m.key + c), kF32, key + c);
      const VF sum = hn::Add(hn::LoadU(kF32, m.gate + c), hn::LoadU(kF32, m.ape + c));
      hn::StoreU(sum, kF32, gate + c);
    }
  }
}

void Run(Context& k, const CompressArgs& a) {
  const std::vector<float> zeros(static_cast<size_t>(a.ape.shape[1]));
  // A few blocks of ratio 4 take as long as waking a thread.
  const int64_t grain = std::max<int64_t>(1, 16 / a.ratio);
  for (int64_t s = 0; s < a.batch.seqs(); ++s) {
    const int64_t begin = a.batch.seq_begin(s), end = a.batch.seq_begin(s + 1);
    if (begin == end) continue;
    const int64_t first = a.batch.positions(begin), after = first + end - begin;
    const Rows rows{a, begin, first, a.batch.slots(s), a.entries.dim, zeros.data()};
    const int64_t from = first / a.ratio, to = after / a.ratio;  // blocks finished by this step
    k.pool().For(to - from, grain, [&](int64_t b, int64_t e) {
      Work work(rows.dim);
      for (int64_t j = from + b; j < from + e; ++j) Emit(rows, s, j, work);
    });
    Keep(rows, after);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::compress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <bit>

namespace seacliff::compress {

HWY_EXPORT(Run);

bool CpuTakes(const CompressArgs& a) {
  const int64_t dim = a.entries.dim;
  const bool kv = a.entries.format == EntryFormat::kKvFp8;
  const bool index =
      a.entries.format == EntryFormat::kIndexFp4 && std::has_single_bit(static_cast<uint64_t>(dim));
  return (kv || index) && dim % 64 == 0 && a.frequencies.shape[0] == 32;
}
void Cpu(Context& k, const CompressArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::compress
#endif
