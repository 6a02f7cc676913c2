// Expectations of the op checks, in double with carried tolerances.
#include "kernels/common/expect.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>

namespace seacliff {
namespace {

// Smallest subnormal of f32: no f32 result can be nearer than that.
constexpr double kTiny = 0x1p-149;

// The exponent of the power of two that is not below amax / top.
int ScaleExponent(double amax, double floor, double top) {
  int exponent = 0;
  const double mantissa = std::frexp(std::max(amax, floor) / top, &exponent);
  return mantissa == 0.5 ? exponent - 1 : exponent;
}

struct Block {  // a block-scaled format
  int bits, min_exponent;
  double top, floor;  // the largest value, and the least largest magnitude
};
constexpr Block kE4m3 = {4, -6, 448, 1e-4};
constexpr Block kE2m1 = {2, 0, 6, 6 * 0x1p-126};

double Cast(double x, int exponent, const Block& f) {
  const double scaled = std::clamp(std::ldexp(x, -exponent), -f.top, f.top);
  return std::ldexp(ToGrid(scaled, f.bits, f.min_exponent), exponent);
}

void Quantise(std::span<Approx> x, int64_t group, const Block& f, Expect* scales) {
  for (size_t begin = 0; begin < x.size(); begin += static_cast<size_t>(group)) {
    const auto part = x.subspan(begin, std::min(x.size() - begin, static_cast<size_t>(group)));
    double amax = 0, least = 0, most = 0;
    for (const Approx& v : part) {
      amax = std::max(amax, std::fabs(v.value));
      least = std::max(least, std::fabs(v.value) - v.slack);
      most = std::max(most, std::fabs(v.value) + v.slack);
    }
    const int exponent = ScaleExponent(amax, f.floor, f.top);
    const int low = ScaleExponent(least, f.floor, f.top);
    const int high = ScaleExponent(most, f.floor, f.top);
    if (scales != nullptr) {
      scales->push_back({exponent + 127.0, std::max<double>(high - exponent, exponent - low)});
    }
    for (Approx& v : part) {
      const double value = Cast(v.value, exponent, f);
      double slack = 0;
      for (int e = low; e <= high; ++e) {
        slack = std::max(slack, Cast(v.value + v.slack, e, f) - value);
        slack = std::max(slack, value - Cast(v.value - v.slack, e, f));
        slack = std::max(slack, std::fabs(value - Cast(v.value, e, f)));
      }
      v = {value, slack};
    }
  }
}

// Where the parts of an entry stand in its page (spec/model.md 4.1, 4.2).
struct Layout {
  int64_t rope, row, groups, scale_row;
  Layout(EntryFormat format, int64_t dim) {
    const bool key = format == EntryFormat::kKvFp8;
    rope = key ? 64 : 0;
    groups = key ? (dim - rope) / 64 : dim / 32;
    row = key ? dim - rope + 2 * rope : dim / 2;
    scale_row = key ? (groups / 8 + 1) * 8 : groups;
  }
};

bool IsFloat(EntryFormat f) { return f == EntryFormat::kKvF32 || f == EntryFormat::kIndexF32; }

}  // namespace

double Allowance::Sum(int64_t terms) const {
  if (!loose) return terms <= 8 ? static_cast<double>(terms) * 0x1p-24 : 0x1p-40;
  return static_cast<double>(std::min<int64_t>(terms, 128) + terms / 128 + 8) * 0x1p-23;
}

void DotProduct::EndE4m3Sum() {
  const double end = std::fabs(block_);
  int exponent = 0;
  std::frexp(std::max(largest_, end), &exponent);
  const double unit = std::ldexp(kE4m3SumUnit, exponent - 1);
  // The terms, the sum so far and the new one lose between nothing and a unit each.
  e4m3_square_ += (kE4m3SumTerms + 2) * unit * unit / 3;
  largest_ = terms_ % 128 == 0 ? 0 : end;
  if (terms_ % 128 == 0) block_ = 0;
}

Approx DotProduct::Total(Allowance a, bool blocked) const {
  const auto terms = static_cast<double>(terms_);
  // Partial sums stay within a few norms. A row rounds (or truncates) at each of some 32 steps of a
  // partial sum of 128, and adds those up.
  const double loose = (32 + terms / 128) * 0x1p-23 * (std::fabs(sum_) + 4 * std::sqrt(square_));
  const double strict = magnitude_ * (blocked ? (terms / 32 + 1) * 0x1p-24 : a.Sum(terms_));
  const double carried = std::min(carried_, 6 * std::sqrt(carried_square_));
  const double units = a.e4m3_units && blocked ? 6 * std::sqrt(e4m3_square_) : 0;
  return {sum_, carried + (a.loose ? loose : strict) + units};
}

double ToGrid(double x, int bits, int min_exponent) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const double step = std::ldexp(1.0, std::max(exponent - 1, min_exponent) - (bits - 1));
  return std::nearbyint(x / step) * step;
}

double DecodeE4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const double magnitude =
      exponent == 0 ? mantissa / 8.0 * 0x1p-6 : (1 + mantissa / 8.0) * std::exp2(exponent - 7);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

double DecodeE2m1(uint8_t code) {
  const int exponent = code >> 1 & 3, mantissa = code & 1;
  const double magnitude =
      exponent == 0 ? mantissa / 2.0 : (1 + mantissa / 2.0) * std::exp2(exponent - 1);
  return (code & 8) != 0 ? -magnitude : magnitude;
}

Approx Round(Approx x, DType dtype) {
  x.slack += std::fabs(x.value) * 0x1p-24 + kTiny;
  if (dtype == DType::kF32) return x;
  const double low = ToGrid(x.value - x.slack, 8, -126);
  const double high = ToGrid(x.value + x.slack, 8, -126);
  const double value = ToGrid(x.value, 8, -126);
  return {value, std::max(high - value, value - low)};
}

void Round(std::span<Approx> x, DType dtype) {
  for (Approx& v : x) v = Round(v, dtype);
}

Approx RoundOrNot(Approx x, DType dtype, Allowance a) {
  Approx rounded = Round(x, dtype);
  if (a.loose && dtype == DType::kBf16) {
    rounded.slack = std::max(rounded.slack, x.slack + std::fabs(rounded.value - x.value));
  }
  return rounded;
}

void QuantiseE4m3(std::span<Approx> x, int64_t group, Expect* scales) {
  Quantise(x, group, kE4m3, scales);
}

void QuantiseE2m1(std::span<Approx> x, Expect* scales) { Quantise(x, 32, kE2m1, scales); }

std::vector<double> WeightRow(const Matrix& w, int64_t row) {
  static const std::array<double, 256> e4m3 = [] {
    std::array<double, 256> table{};
    for (int i = 0; i < 256; ++i) table[i] = DecodeE4m3(static_cast<uint8_t>(i));
    return table;
  }();
  std::vector<double> out(static_cast<size_t>(w.cols));
  const auto* bytes = static_cast<const uint8_t*>(w.data);
  const auto power = [&](int64_t index) { return std::ldexp(1.0, w.scales[index].bits - 127); };
  double scale = 0;
  for (int64_t c = 0; c < w.cols; ++c) {
    const int64_t at = row * w.cols + c;
    switch (w.format) {
      case WeightFormat::kF32:
        out[c] = reinterpret_cast<const float*>(bytes)[at];
        break;
      case WeightFormat::kBf16:
        out[c] = ToFloat(reinterpret_cast<const Bf16*>(bytes)[at]);
        break;
      case WeightFormat::kFp8:
        if (c % 128 == 0) scale = power(row / 128 * ((w.cols + 127) / 128) + c / 128);
        out[c] = e4m3[bytes[at]] * scale;
        break;
      case WeightFormat::kMxfp4:
        if (c % 32 == 0) scale = power(at / 32);
        out[c] = DecodeE2m1(static_cast<uint8_t>(bytes[at / 2] >> (c % 2 * 4))) * scale;
        break;
    }
  }
  return out;
}

Expect MatMul(const Expect& x, const Matrix& w, Allowance a, bool quantised, ThreadPool* pool) {
  const auto tokens = static_cast<int64_t>(x.size()) / w.cols;
  Expect out(static_cast<size_t>(tokens * w.rows));
  const auto rows = [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const std::vector<double> row = WeightRow(w, n);
      for (int64_t t = 0; t < tokens; ++t) {
        DotProduct dot;
        for (int64_t c = 0; c < w.cols; ++c) dot.Add(x[t * w.cols + c], row[c]);
        out[t * w.rows + n] = dot.Total(a, quantised);
      }
    }
  };
  if (pool != nullptr) {
    pool->For(w.rows, 64, rows);
  } else {
    rows(0, w.rows);
  }
  return out;
}

void RmsNorm(std::span<Approx> x, View<const Bf16, 1> weight, double eps, Allowance a) {
  const auto n = static_cast<double>(x.size());
  double square = eps, carried = 0;
  for (const Approx& v : x) {
    square += v.value * v.value / n;
    carried += (2 * std::fabs(v.value) + v.slack) * v.slack / n;
  }
  const double norm = 1 / std::sqrt(square);
  const double relative = carried / square + a.Sum(static_cast<int64_t>(x.size())) + a.Step();
  for (size_t i = 0; i < x.size(); ++i) {
    const double factor = weight ? norm * ToFloat(weight(i)) : norm;
    x[i].slack = std::fabs(factor) * (x[i].slack + std::fabs(x[i].value) * relative);
    x[i].value *= factor;
  }
}

void RotateLast(std::span<Approx> x, View<const float, 1> frequencies, int64_t position, int sign,
                Allowance a) {
  const auto pairs = static_cast<size_t>(frequencies.shape[0]);
  const auto tail = x.last(2 * pairs);
  for (size_t i = 0; i < pairs; ++i) {
    Approx& p = tail[2 * i];
    Approx& q = tail[2 * i + 1];
    // The angle is an f32 product by contract.
    const float angle = static_cast<float>(position) * frequencies(i);
    const auto turn = std::polar(1.0, sign * static_cast<double>(angle));
    const auto turned = std::complex<double>(p.value, q.value) * turn;
    const double error = a.Step() * (std::fabs(p.value) + std::fabs(q.value));
    const double c = std::fabs(turn.real()), s = std::fabs(turn.imag());
    const double slack_p = c * p.slack + s * q.slack, slack_q = s * p.slack + c * q.slack;
    p = {turned.real(), slack_p + error};
    q = {turned.imag(), slack_q + error};
  }
}

// As a sum over the signs of the matrix. Every row, ref included, runs the stages in f32.
void HadamardTransform(std::span<Approx> x) {
  const std::vector<Approx> in(x.begin(), x.end());
  const double scale = 1 / std::sqrt(static_cast<double>(in.size()));
  for (size_t i = 0; i < in.size(); ++i) {
    double sum = 0, slack = 0;
    for (size_t j = 0; j < in.size(); ++j) {
      sum += std::popcount(i & j) % 2 == 0 ? in[j].value : -in[j].value;
      slack += in[j].slack + std::fabs(in[j].value) * 0x1p-21;
    }
    x[i] = {sum * scale, slack * scale};
  }
}

Approx SigmoidOf(Approx x, Allowance a) {
  const double y = 0.5 * (1 + std::tanh(x.value / 2));
  return {y, 0.25 * x.slack + a.Step() * (y + 1e-7)};
}

Expect MhcStreams(const Act<2>& y, const Act<3>& streams, View<const float, 2> mix, int64_t t,
                  Allowance a) {
  const int64_t count = streams.shape[1], dim = streams.shape[2];
  if (!y) return Values(streams, t * count * dim, count * dim);
  Expect out;
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t i = 0; i < dim; ++i) {
      double sum = 0, magnitude = 0;
      for (int64_t j = -1; j < count; ++j) {
        const double in = j < 0 ? y.Load(t * dim + i) : streams.Load((t * count + j) * dim + i);
        const double product = in * (j < 0 ? mix(t, k) : mix(t, count + j * count + k));
        sum += product;
        magnitude += std::fabs(product);
      }
      out.push_back(Round(Approx{sum, magnitude * a.Sum(count)}, streams.dtype));
    }
  }
  return out;
}

Expect MhcProjection(const Expect& streams, const Matrix& fn, double eps, Allowance a) {
  Expect m = MatMul(streams, fn, a);
  double square = eps, carried = 0;
  for (const Approx& v : streams) {
    square += v.value * v.value / static_cast<double>(streams.size());
    carried += (2 * std::fabs(v.value) + v.slack) * v.slack / static_cast<double>(streams.size());
  }
  const double relative = carried / square + a.Sum(fn.cols) + a.Step();
  for (Approx& v : m) {
    v.value /= std::sqrt(square);
    v.slack = v.slack / std::sqrt(square) + std::fabs(v.value) * relative;
  }
  return m;
}

Expect MhcInput(const Expect& streams, const Expect& weights, DType dtype, View<const Bf16, 1> norm,
                double eps, Allowance a) {
  Expect x(streams.size() / weights.size());
  for (size_t i = 0; i < x.size(); ++i) {
    double sum = 0, slack = 0;
    for (size_t j = 0; j < weights.size(); ++j) {
      const Approx& h = streams[j * x.size() + i];
      const Approx& w = weights[j];
      sum += w.value * h.value;
      slack += std::fabs(w.value) * h.slack + w.slack * (std::fabs(h.value) + h.slack) +
               a.Sum(4) * std::fabs(w.value * h.value);
    }
    x[i] = Round(Approx{sum, slack}, dtype);
  }
  RmsNorm(x, norm, eps, a);
  Round(x, dtype);
  return x;
}

std::vector<double> ReadEntry(const PagedView& view, int64_t page, int64_t slot) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(view.page(page));
  std::vector<double> out;
  if (IsFloat(view.format)) {
    const auto* v = reinterpret_cast<const float*>(bytes) + slot * view.dim;
    return {v, v + view.dim};
  }
  const Layout l(view.format, view.dim);
  const uint8_t* row = bytes + slot * l.row;
  const uint8_t* scales = bytes + view.page_len * l.row + slot * l.scale_row;
  for (int64_t i = 0; i < view.dim - l.rope; ++i) {
    const bool key = view.format == EntryFormat::kKvFp8;
    const double v =
        key ? DecodeE4m3(row[i]) : DecodeE2m1(static_cast<uint8_t>(row[i / 2] >> (i % 2 * 4)));
    const int scale = scales[i / (key ? 64 : 32)];
    out.push_back(scale == 255 ? NAN : std::ldexp(v, scale - 127));
  }
  for (int64_t i = 0; i < l.rope; ++i) {
    Bf16 v{};
    std::memcpy(&v, row + view.dim - l.rope + 2 * i, 2);
    out.push_back(ToFloat(v));
  }
  out.insert(out.end(), scales, scales + l.groups);
  return out;
}

Expect EntryOf(EntryFormat format, Expect x) {
  if (IsFloat(format)) {
    Round(x, DType::kF32);
    return x;
  }
  Expect scales;
  if (format == EntryFormat::kKvFp8) {
    const std::span<Approx> all(x);
    QuantiseE4m3(all.first(x.size() - 64), 64, &scales);
    Round(all.last(64), DType::kBf16);
  } else {
    QuantiseE2m1(x, &scales);
  }
  Append(x, scales);
  return x;
}

void FillEntry(const PagedView& view, int64_t page, int64_t slot, Random& random) {
  auto* bytes = reinterpret_cast<uint8_t*>(view.page(page));
  if (IsFloat(view.format)) {
    auto* v = reinterpret_cast<float*>(bytes) + slot * view.dim;
    for (int64_t i = 0; i < view.dim; ++i) v[i] = static_cast<float>(random.Normal());
    return;
  }
  const Layout l(view.format, view.dim);
  uint8_t* row = bytes + slot * l.row;
  uint8_t* scales = bytes + view.page_len * l.row + slot * l.scale_row;
  for (int64_t i = 0; i < l.row - 2 * l.rope; ++i) {
    const uint64_t r = random.Next();
    // Magnitudes 2^-3 .. 2^1 of either sign, or two codes of the 16.
    const uint64_t e4m3 = (r & 0x80) | (4 + (r >> 8) % 4) << 3 | (r & 7);
    row[i] = static_cast<uint8_t>(view.format == EntryFormat::kKvFp8 ? e4m3 : r);
  }
  for (int64_t i = 0; i < l.rope; ++i) {
    const Bf16 v = ToBf16(static_cast<float>(random.Normal()));
    std::memcpy(row + view.dim - l.rope + 2 * i, &v, 2);
  }
  for (int64_t g = 0; g < l.groups; ++g) {
    scales[g] = static_cast<uint8_t>(126 + random.Below(3));
  }
}

}  // namespace seacliff
