// cpu row of sample: a few passes over the logits, most of which skip chunks that cannot matter.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sample/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>

#include "base/random.h"
#include "kernels/common/simd-inl.h"
#include "kernels/sample/steps.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::sample {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

using Logits = std::span<const float>;
using HalfF32 = hn::Half<F32>;
using F64 = hn::Rebind<double, HalfF32>;
using VD = hn::Vec<F64>;

constexpr int64_t kChunk = 1024;

int64_t Chunks(Logits logits) {
  return (static_cast<int64_t>(logits.size()) + kChunk - 1) / kChunk;
}

// Which ids stay: those with a larger logit, or an equal one and a lower id; and of those the ones
// that weigh enough.
struct Cut {
  float logit = -kInfinity;
  int32_t id = std::numeric_limits<int32_t>::max();
  float weight = 0;
};

// exp(x) for x <= 0 within 2^-22; below the normal numbers of f32 it is 0.
HWY_INLINE VF ExpDown(VF x) {
  // x = q ln 2 + r. Adding 1.5 * 2^23 rounds to an integer, which the lowest bits then hold.
  const VF magic = hn::Set(kF32, 0x1.8p23f);
  const VF z = hn::MulAdd(x, hn::Set(kF32, 1.44269504f), magic);
  const VF q = hn::Sub(z, magic);
  // The upper part of ln 2 has few bits, so that its product is exact without fused operations too.
  VF r = hn::NegMulAdd(q, hn::Set(kF32, 0x1.63p-1f), x);
  r = hn::NegMulAdd(q, hn::Set(kF32, -0x1.bd0106p-13f), r);
  // 1 + r + r^2 P(r), within 3e-9 of exp for |r| < 0.347 (P fitted so that its largest relative
  // error is least).
  VF p = hn::Set(kF32, 1.381446254631947e-3f);
  p = hn::MulAdd(p, r, hn::Set(kF32, 8.368780898485131e-3f));
  p = hn::MulAdd(p, r, hn::Set(kF32, 4.166839430760302e-2f));
  p = hn::MulAdd(p, r, hn::Set(kF32, 0.16666520102570412f));
  p = hn::MulAdd(p, r, hn::Set(kF32, 0.49999993412008276f));
  const VF y = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(kF32, 1.0f));
  const VU power = hn::ShiftLeft<23>(hn::Add(hn::BitCast(kU32, z), hn::Set(kU32, 127)));
  const VF e = hn::Mul(y, hn::BitCast(kF32, power));
  return hn::IfThenElseZero(hn::Gt(x, hn::Set(kF32, -87.0f)), e);
}

// The lanes of a and b that are to be kept, one after the other, to to_a and to_b, where whole
// vectors are written; returns their number. hn::Compress copies its table to the stack with some
// compilers for AVX2, and compressing stores are slow on some machines with AVX-512.
#if HWY_TARGET == HWY_AVX2
inline constexpr auto kKeptLanes = [] {
  std::array<std::array<uint8_t, 8>, 256> lanes{};
  for (size_t bits = 0; bits < 256; ++bits) {
    size_t count = 0;
    for (size_t lane = 0; lane < 8; ++lane) {
      if ((bits >> lane & 1) != 0) lanes[bits][count++] = static_cast<uint8_t>(lane);
    }
  }
  return lanes;
}();
HWY_INLINE int64_t StoreKept(VF a, VF b, hn::Mask<F32> keep, float* to_a, float* to_b) {
  uint8_t bits = 0;
  hn::StoreMaskBits(kF32, keep, &bits);
  const auto lanes = hn::PromoteTo(kU32, hn::LoadU(U8(), kKeptLanes[bits].data()));
  const auto order = hn::IndicesFromVec(kF32, lanes);
  hn::StoreU(hn::TableLookupLanes(a, order), kF32, to_a);
  hn::StoreU(hn::TableLookupLanes(b, order), kF32, to_b);
  return std::popcount(bits);
}
#else
HWY_INLINE int64_t StoreKept(VF a, VF b, hn::Mask<F32> keep, float* to_a, float* to_b) {
  hn::StoreU(hn::Compress(a, keep), kF32, to_a);
  hn::StoreU(hn::Compress(b, keep), kF32, to_b);
  return static_cast<int64_t>(hn::CountTrue(kF32, keep));
}
#endif

// A row in chunks, with the weights exp((logit - largest) / temperature).
class Row {
 public:
  Row(Logits logits, float largest, float temperature, SampleScratch& scratch)
      : logits_(logits), largest_(largest), scratch_(scratch) {
    // 0 must stay 0 for the smallest of temperatures.
    inverse_ = std::min(1.0f / temperature, std::numeric_limits<float>::max());
  }

  Cut cut;

  int64_t chunks() const { return Chunks(logits_); }

  // Chunk i, filled up with -inf.
  const float* Chunk(int64_t i) {
    const auto begin = static_cast<size_t>(i * kChunk);
    if (logits_.size() - begin >= static_cast<size_t>(kChunk)) return logits_.data() + begin;
    std::fill(tail_.begin(), tail_.end(), -kInfinity);
    std::copy(logits_.begin() + static_cast<int64_t>(begin), logits_.end(), tail_.begin());
    return tail_.data();
  }

  // Whether any logit of chunk i may be as large.
  bool Reaches(int64_t i, float logit) const {
    const VF top = hn::LoadU(kF32, scratch_.maxima.data() + i * Lanes());
    return !hn::AllFalse(kF32, hn::Ge(top, hn::Set(kF32, logit)));
  }

  // The weights of chunk i, 0 for ids that do not stay, and their sum. With a sum of 0 they may not
  // have been written.
  double Weigh(int64_t i, float* weights) {
    if (!Reaches(i, cut.logit)) return 0;
    const float* logits = Chunk(i);
    const VF edge = hn::Set(kF32, cut.logit), least = hn::Set(kF32, cut.weight);
    const VF above = hn::Set(kF32, std::nextafter(cut.logit, kInfinity));
    const auto end = hn::Set(I32(), cut.id);
    const VF largest = hn::Set(kF32, largest_), inverse = hn::Set(kF32, inverse_);
    VD low = hn::Zero(F64()), high = hn::Zero(F64());
    for (int64_t j = 0; j < kChunk; j += Lanes()) {
      const VF v = hn::LoadU(kF32, logits + j);
      const auto id = hn::Iota(I32(), static_cast<int32_t>(i * kChunk + j));
      const auto lower = hn::RebindMask(kF32, hn::Lt(id, end));
      const auto stays = hn::Ge(v, hn::IfThenElse(lower, edge, above));
      if (hn::AllFalse(kF32, stays)) {
        hn::StoreU(hn::Zero(kF32), kF32, weights + j);
        continue;
      }
      VF w = ExpDown(hn::Mul(hn::Sub(v, largest), inverse));
      w = hn::IfThenElseZero(hn::And(stays, hn::Ge(w, least)), w);
      hn::StoreU(w, kF32, weights + j);
      low = hn::Add(low, hn::PromoteTo(F64(), hn::LowerHalf(HalfF32(), w)));
      high = hn::Add(high, hn::PromoteTo(F64(), hn::UpperHalf(HalfF32(), w)));
    }
    return hn::GetLane(hn::SumOfLanes(F64(), hn::Add(low, high)));
  }

  // The sum of all weights that stay; of the chunks in scratch.sums.
  double WeighAll() {
    alignas(64) float weights[kChunk];
    double sum = 0;
    scratch_.sums.resize(static_cast<size_t>(chunks()));
    for (int64_t i = 0; i < chunks(); ++i) {
      sum += scratch_.sums[static_cast<size_t>(i)] = Weigh(i, weights);
    }
    return sum;
  }

  // Fills scratch.candidates: the `count` best come first, the worst of them last, and others
  // follow. count: 1 .. number of ids.
  void Select(int64_t count);
  // Sets the cut at the end of the shortest prefix that has `part` of the weights that stay.
  void CutPrefix(double part);
  // The id that stays at which the running sum of weights exceeds u times their sum.
  int32_t Choose(double u);

 private:
  int64_t Collect(double floor, double* sum);
  int32_t IdOf(float logit, int64_t index);

  const Logits logits_;
  const float largest_;
  float inverse_;
  SampleScratch& scratch_;
  alignas(64) std::array<float, kChunk> tail_;
};

// Notes the largest logits of each chunk, one of each lane, in scratch.maxima.
int32_t ArgMax(Logits logits, SampleScratch& scratch) {
  Row row(logits, 0, 1, scratch);
  const VF infinite = hn::Set(kF32, kInfinity);
  const VF lowest = hn::Neg(infinite);
  scratch.maxima.resize(static_cast<size_t>(row.chunks() * Lanes()));
  auto finite = hn::Eq(infinite, infinite);
  VF all = lowest;
  for (int64_t i = 0; i < row.chunks(); ++i) {
    const float* chunk = row.Chunk(i);
    VF top[2] = {lowest, lowest};
    for (int64_t j = 0; j < kChunk; j += 2 * Lanes()) {
      const VF a = hn::LoadU(kF32, chunk + j), b = hn::LoadU(kF32, chunk + j + Lanes());
      finite = hn::And(finite, hn::And(hn::Lt(a, infinite), hn::Lt(b, infinite)));  // not for NaN
      top[0] = hn::Max(top[0], a);
      top[1] = hn::Max(top[1], b);
    }
    top[0] = hn::Max(top[0], top[1]);
    hn::StoreU(top[0], kF32, scratch.maxima.data() + i * Lanes());
    all = hn::Max(all, top[0]);
  }
  // Not MaxOfLanes: on the plain target it knows nothing below the lowest finite number.
  alignas(64) float lanes[kLaneStep];
  hn::Store(all, kF32, lanes);
  const float largest = *std::max_element(lanes, lanes + Lanes());
  if (!hn::AllTrue(kF32, finite) || largest == -kInfinity) return -1;
  int64_t i = 0;
  while (!row.Reaches(i, largest)) ++i;
  const float* chunk = row.Chunk(i);
  return static_cast<int32_t>(i * kChunk + (std::find(chunk, chunk + kChunk, largest) - chunk));
}

void Row::Select(int64_t count) {
  // The `count`-th largest of the chunks' maxima bounds that of the logits.
  const size_t number = scratch_.maxima.size();
  scratch_.keys.resize(std::max(scratch_.keys.size(), number));
  const auto bounds = std::span(scratch_.keys).first(number);
  std::copy(scratch_.maxima.begin(), scratch_.maxima.end(), bounds.begin());
  float least = -kInfinity;
  if (count <= static_cast<int64_t>(number)) {
    const auto at = bounds.begin() + (count - 1);
    std::nth_element(bounds.begin(), at, bounds.end(), std::greater<>());
    least = *at;
  }
  std::vector<Candidate>& candidates = scratch_.candidates;
  candidates.clear();
  const VF edge = hn::Set(kF32, least);
  for (int64_t i = 0; i < chunks(); ++i) {
    if (!Reaches(i, least)) continue;
    const float* chunk = Chunk(i);
    const auto size = std::min(kChunk, static_cast<int64_t>(logits_.size()) - i * kChunk);
    for (int64_t j = 0; j < size; j += Lanes()) {
      if (hn::AllFalse(kF32, hn::Ge(hn::LoadU(kF32, chunk + j), edge))) continue;
      for (int64_t n = j; n < std::min(size, j + Lanes()); ++n) {
        if (chunk[n] >= least) {
          candidates.push_back({chunk[n], static_cast<int32_t>(i * kChunk + n)});
        }
      }
    }
  }
  std::nth_element(candidates.begin(), candidates.begin() + (count - 1), candidates.end(), Better);
}

// The logits that stay and weigh `floor` at least to scratch.keys, their weights to
// scratch.weights, and their number; sum: of all that stay.
int64_t Row::Collect(double floor, double* sum) {
  const auto room = static_cast<size_t>(chunks() * kChunk + 2 * kLaneStep);
  scratch_.keys.resize(std::max(scratch_.keys.size(), room));
  scratch_.weights.resize(std::max(scratch_.weights.size(), room));
  float *keys = scratch_.keys.data(), *kept = scratch_.weights.data();
  const VF least = hn::Set(kF32, static_cast<float>(floor));
  alignas(64) float weights[kChunk];
  int64_t count = 0;
  *sum = 0;
  for (int64_t i = 0; i < chunks(); ++i) {
    const double part = Weigh(i, weights);
    if (part == 0) continue;
    *sum += part;
    const float* chunk = Chunk(i);
    for (int64_t j = 0; j < kChunk; j += Lanes()) {
      const VF w = hn::LoadU(kF32, weights + j);
      const auto keep = hn::Ge(w, least);
      if (hn::AllFalse(kF32, keep)) continue;
      count += StoreKept(hn::LoadU(kF32, chunk + j), w, keep, keys + count, kept + count);
    }
  }
  return count;
}

// A selection of logits and their weights. Behind them stands a vector of NaN, which is on no side
// of a pivot.
struct Selection {
  float *keys, *weights;
  int64_t count;

  void Close() { hn::StoreU(hn::Set(kF32, NAN), kF32, keys + count); }

  // The middle one of some of them.
  int64_t Pivot() const {
    std::array<int64_t, 9> at{};
    for (size_t i = 0; i < at.size(); ++i) at[i] = count * static_cast<int64_t>(i) / 9;
    std::nth_element(at.begin(), at.begin() + 4, at.end(),
                     [this](int64_t x, int64_t y) { return keys[x] > keys[y]; });
    return at[4];
  }

  // The weight above the pivot, and how many keys are there and at it.
  double Above(float pivot, int64_t* above, int64_t* equal) const {
    const VF edge = hn::Set(kF32, pivot);
    VD low = hn::Zero(F64()), high = hn::Zero(F64());
    *above = *equal = 0;
    for (int64_t i = 0; i < count; i += Lanes()) {
      const VF key = hn::LoadU(kF32, keys + i);
      const auto is_above = hn::Gt(key, edge);
      const VF w = hn::IfThenElseZero(is_above, hn::LoadU(kF32, weights + i));
      low = hn::Add(low, hn::PromoteTo(F64(), hn::LowerHalf(HalfF32(), w)));
      high = hn::Add(high, hn::PromoteTo(F64(), hn::UpperHalf(HalfF32(), w)));
      *above += static_cast<int64_t>(hn::CountTrue(kF32, is_above));
      *equal += static_cast<int64_t>(hn::CountTrue(kF32, hn::Eq(key, edge)));
    }
    return hn::GetLane(hn::SumOfLanes(F64(), hn::Add(low, high)));
  }

  // Leaves what is above the pivot, or what is below it.
  void Keep(bool above, float pivot) {
    const VF edge = hn::Set(kF32, pivot);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i += Lanes()) {
      const VF key = hn::LoadU(kF32, keys + i), w = hn::LoadU(kF32, weights + i);
      const auto keep = above ? hn::Gt(key, edge) : hn::Lt(key, edge);
      kept += StoreKept(key, w, keep, keys + kept, weights + kept);
    }
    count = kept;
    Close();
  }
};

void Row::CutPrefix(double part) {
  // The largest weight is 1, so that all weights below this floor together are less than what may
  // be cut: none of them is in the prefix.
  double sum = 0;
  const int64_t count = Collect(0.5 * (1 - part) / static_cast<double>(logits_.size()), &sum);
  Selection s{scratch_.keys.data(), scratch_.weights.data(), count};
  s.Close();
  double wanted = part * sum;
  for (;;) {
    const int64_t at = s.Pivot();
    const float pivot = s.keys[at];
    const auto weight = static_cast<double>(s.weights[at]);
    int64_t above = 0, equal = 0;
    const double heavier = s.Above(pivot, &above, &equal);
    if (above > 0 && heavier >= wanted) {
      s.Keep(true, pivot);
      continue;
    }
    wanted -= heavier;
    if (static_cast<double>(equal) * weight < wanted && above + equal < s.count) {
      wanted -= static_cast<double>(equal) * weight;
      s.Keep(false, pivot);
      continue;
    }
    const double ties = std::clamp(std::ceil(wanted / weight), 1.0, static_cast<double>(equal));
    cut.id = IdOf(pivot, static_cast<int64_t>(ties)) + 1;
    cut.logit = pivot;
    return;
  }
}

// The n-th id, from 1, that has this logit.
int32_t Row::IdOf(float logit, int64_t n) {
  const VF wanted = hn::Set(kF32, logit);
  int64_t i = 0, j = 0;
  for (;; ++i) {
    if (!Reaches(i, logit)) continue;
    const float* chunk = Chunk(i);
    for (j = 0; j < kChunk; j += Lanes()) {
      const auto equal = hn::Eq(hn::LoadU(kF32, chunk + j), wanted);
      const auto count = static_cast<int64_t>(hn::CountTrue(kF32, equal));
      if (count >= n) {
        while (chunk[j] != logit || --n > 0) ++j;
        return static_cast<int32_t>(i * kChunk + j);
      }
      n -= count;
    }
  }
}

int32_t Row::Choose(double u) {
  const double target = u * WeighAll();
  // u * sum may round up to the sum itself: then the last that has a weight.
  int64_t chosen = 0;
  double running = 0, before = 0;
  for (int64_t i = 0; i < chunks(); ++i) {
    const double sum = scratch_.sums[static_cast<size_t>(i)];
    if (sum == 0) continue;
    chosen = i;
    before = running;
    running += sum;
    if (running > target) break;
  }
  alignas(64) float weights[kChunk];
  Weigh(chosen, weights);
  int64_t last = 0;
  for (int64_t j = 0; j < kChunk; ++j) {
    if (weights[j] == 0) continue;
    before += static_cast<double>(weights[j]);
    last = j;
    if (before > target) break;
  }
  return static_cast<int32_t>(chosen * kChunk + last);
}

int32_t DrawToken(const SampleRow& args, Logits logits, float largest, SampleScratch& scratch) {
  Row row(logits, largest, args.temperature, scratch);
  if (args.top_k > 0 && static_cast<size_t>(args.top_k) < logits.size()) {
    row.Select(args.top_k);
    const Candidate& last = scratch.candidates[static_cast<size_t>(args.top_k - 1)];
    row.cut = {last.logit, last.id + 1};
  }
  if (args.top_p < 1) row.CutPrefix(static_cast<double>(args.top_p));
  row.cut.weight = args.min_p;
  return row.Choose(RandomUniform(args.seed, args.index, Draw::kToken));
}

double Weigh(const SampleRow& args, float largest, SampleScratch& scratch) {
  if (Adjusts(args)) ArgMax(args.logits, scratch);  // for its maxima
  Row row(args.logits, largest, 1, scratch);
  const auto top = std::min<int64_t>(args.top_logprobs, static_cast<int64_t>(args.logits.size()));
  if (top > 0) {
    row.Select(top);
    std::sort(scratch.candidates.begin(), scratch.candidates.begin() + top, Better);
  }
  return row.WeighAll();
}

void Run(Context& k, const SampleArgs& a) {
  k.pool().For(static_cast<int64_t>(a.rows.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      SampleRow& row = a.rows[static_cast<size_t>(i)];
      row.error = SampleOne(row, {ArgMax, DrawToken, Weigh});
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::sample
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::sample {

HWY_EXPORT(Run);

void Cpu(Context& k, const SampleArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::sample
#endif
