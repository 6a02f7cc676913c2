// What an op's outputs must be: arithmetic in double on values that carry how far an honest row may
// stand from them. Written from spec/model.md alone: it shares no code with codec.cc or any row, so
// that a row can fail against it.
//
// A tolerance is derived, not chosen: sums get what f32 in any order may lose (a multiple of the
// sum of magnitudes), a rounding named by the op's contract gives one step of its format only where
// the value stands so near the middle of two steps that both are honest, and every later stage
// carries on what it was given.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/common/check_memory.h"

namespace seacliff {

struct Approx {
  double value = 0, slack = 0;
};
using Expect = std::vector<Approx>;

// How rows may differ from the double arithmetic here, apart from the roundings of the contract.
struct Allowance {
  // ref goes from step to step in f32 but sums in double, except for up to 8 numbers and for the
  // blocks of a product with block-scaled weights. Other rows sum in f32, in partial sums of 128,
  // on units that may truncate, and may leave out roundings where their contract says so.
  bool loose = false;
  // The row adds up e4m3 products on sm_90's tensor cores, which keep few bits (kE4m3SumUnit).
  bool e4m3_units = false;

  // Error of a sum of `terms` numbers of one sign, relative to it.
  double Sum(int64_t terms) const;
  // Relative error of a few operations or one function value.
  double Step() const { return loose ? 0x1p-20 : 0x1p-21; }
};

// Tensor cores of sm_90 add up 32 products of e4m3 and the sum so far in fixed point: all lose what
// lies below 2^-13 of the largest one's power of two, and so does the new sum. Every block of 128
// starts from zero.
inline constexpr double kE4m3SumUnit = 0x1p-13;
inline constexpr int kE4m3SumTerms = 32;

// A sum of products. Roundings of partial sums walk at random, so that their error goes with the
// norm of the products; errors that the factors bring along are independent, and six standard
// deviations of their sum is what is carried on.
class DotProduct {
 public:
  void Add(Approx x, double w) {
    const double product = x.value * w, error = x.slack * w;
    sum_ += product;
    magnitude_ += product < 0 ? -product : product;
    square_ += product * product;
    carried_ += error < 0 ? -error : error;
    carried_square_ += error * error;
    block_ += product;
    largest_ = std::max(largest_, product < 0 ? -product : product);
    if (++terms_ % kE4m3SumTerms == 0) EndE4m3Sum();
  }
  // `blocked`: ref adds up blocks of 32 or more in f32, as it does with quantised activations.
  Approx Total(Allowance a, bool blocked = false) const;

 private:
  void EndE4m3Sum();

  double sum_ = 0, magnitude_ = 0, square_ = 0, carried_ = 0, carried_square_ = 0;
  double block_ = 0, largest_ = 0, e4m3_square_ = 0;
  int64_t terms_ = 0;
};

// Nearest value with `bits` significant bits, ties to even; steps stop shrinking at
// 2^min_exponent.
double ToGrid(double x, int bits, int min_exponent);
double DecodeE4m3(uint8_t code);
double DecodeE2m1(uint8_t code);  // the low four bits

// Activations [begin, begin + count), exact.
template <int N>
Expect Values(const Act<N>& a, int64_t begin, int64_t count) {
  Expect x(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) x[i].value = a.Load(begin + i);
  return x;
}
template <int N>
std::vector<double> Loaded(const Act<N>& a) {
  std::vector<double> x(static_cast<size_t>(a.size()));
  for (int64_t i = 0; i < a.size(); ++i) x[i] = a.Load(i);
  return x;
}
template <typename T>
void Append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Rounds to bf16 or passes through f32.
Approx Round(Approx x, DType dtype);
void Round(std::span<Approx> x, DType dtype);
// A rounding that the contract lets other rows than ref leave out.
Approx RoundOrNot(Approx x, DType dtype, Allowance a);

// As e4m3 (e2m1) with a power-of-two scale for each `group` (32) values would give it back. The
// exponents of the scales are appended to `scales` if given.
void QuantiseE4m3(std::span<Approx> x, int64_t group, Expect* scales = nullptr);
void QuantiseE2m1(std::span<Approx> x, Expect* scales = nullptr);

// One row of weights in double.
std::vector<double> WeightRow(const Matrix& w, int64_t row);
// [tokens, w.rows] from x [tokens, w.cols]. `quantised`: x went through QuantiseE4m3. On the
// threads of `pool`, if given.
Expect MatMul(const Expect& x, const Matrix& w, Allowance a, bool quantised = false,
              ThreadPool* pool = nullptr);

// x / sqrt(mean(x^2) + eps) * weight (no weight: 1), not rounded.
void RmsNorm(std::span<Approx> x, View<const Bf16, 1> weight, double eps, Allowance a);
// Rotates the last 2 n of x, n the number of frequencies, by sign * position.
void RotateLast(std::span<Approx> x, View<const float, 1> frequencies, int64_t position, int sign,
                Allowance a);
void HadamardTransform(std::span<Approx> x);

// mHC (spec/model.md 2.3). All streams of token t after post(y), [S * dim], rounded.
Expect MhcStreams(const Act<2>& y, const Act<3>& streams, View<const float, 2> mix, int64_t t,
                  Allowance a);
// (fn X) / rms(X).
Expect MhcProjection(const Expect& streams, const Matrix& fn, double eps, Allowance a);
// rms_norm of the rounded sum of the streams by `weights`, rounded.
Expect MhcInput(const Expect& streams, const Expect& weights, DType dtype, View<const Bf16, 1> norm,
                double eps, Allowance a);
Approx SigmoidOf(Approx x, Allowance a);

// A cache entry as its bytes say: the decoded values, then the scale bytes of its groups.
std::vector<double> ReadEntry(const PagedView& view, int64_t page, int64_t slot);
// What ReadEntry must give after x was stored.
Expect EntryOf(EntryFormat format, Expect x);
// Writes random bytes that are a valid entry of values near 1; unused bytes stay poison.
void FillEntry(const PagedView& view, int64_t page, int64_t slot, Random& random);

}  // namespace seacliff
