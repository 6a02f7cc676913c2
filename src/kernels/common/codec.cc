// Decoding, quantisation and rotation as plain loops.
#include "kernels/common/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/common/packing.h"

namespace seacliff {

void DecodeRow(const Matrix& w, int64_t row, float* out) {
  const char* bytes = static_cast<const char*>(w.data) + row * w.row_bytes();
  const E8m0* scales = w.scale_row(row);
  std::vector<uint8_t> unpacked;
  std::vector<E8m0> unpacked_scales;
  if (w.layout == WeightLayout::kTiles) {
    unpacked.resize(static_cast<size_t>(w.row_bytes()));
    unpacked_scales.resize(static_cast<size_t>(w.scale_cols()));
    UnpackRow(w, row, unpacked.data(), unpacked_scales.data());
    bytes = reinterpret_cast<const char*>(unpacked.data());
    if (w.format == WeightFormat::kMxfp4) scales = unpacked_scales.data();
  }
  switch (w.format) {
    case WeightFormat::kF32:
      std::memcpy(out, bytes, static_cast<size_t>(w.cols) * 4);
      return;
    case WeightFormat::kBf16: {
      const auto* v = reinterpret_cast<const Bf16*>(bytes);
      for (int64_t i = 0; i < w.cols; ++i) out[i] = ToFloat(v[i]);
      return;
    }
    case WeightFormat::kFp8: {
      const auto* v = reinterpret_cast<const uint8_t*>(bytes);
      const float* table = E4m3Table().data();
      for (int64_t begin = 0; begin < w.cols; begin += 128) {
        const float scale = ToFloat(scales[begin / 128]);
        const int64_t end = std::min(begin + 128, w.cols);
        for (int64_t i = begin; i < end; ++i) out[i] = table[v[i]] * scale;
      }
      return;
    }
    case WeightFormat::kMxfp4: {
      const auto* v = reinterpret_cast<const uint8_t*>(bytes);
      for (int64_t i = 0; i < w.cols; i += 2) {
        const float scale = ToFloat(scales[i / 32]);
        out[i] = kE2m1Table[v[i / 2] & 15] * scale;
        out[i + 1] = kE2m1Table[v[i / 2] >> 4] * scale;
      }
      return;
    }
  }
}

namespace {

float MaxMagnitude(const float* x, int64_t count) {
  float m = 0;
  for (int64_t i = 0; i < count; ++i) m = std::max(m, std::fabs(x[i]));
  return m;
}

float Clamp(float x, float limit) { return std::min(std::max(x, -limit), limit); }

}  // namespace

void RoundTripE4m3(float* x, int64_t count, int64_t group) {
  for (int64_t begin = 0; begin < count; begin += group) {
    const int64_t end = std::min(begin + group, count);
    const float scale = ToFloat(E4m3Scale(MaxMagnitude(x + begin, end - begin)));
    for (int64_t i = begin; i < end; ++i) {
      x[i] = ToFloat(ToE4m3(Clamp(x[i] / scale, kE4m3Max))) * scale;
    }
  }
}

void RoundTripE2m1(float* x, int64_t count) {
  for (int64_t begin = 0; begin < count; begin += 32) {
    const float scale = ToFloat(E2m1Scale(MaxMagnitude(x + begin, 32)));
    for (int64_t i = begin; i < begin + 32; ++i) {
      x[i] = kE2m1Table[ToE2m1(Clamp(x[i] / scale, kE2m1Max))] * scale;
    }
  }
}

void Rotate(float* x, int64_t n, const float* frequency, int64_t position, float sign) {
  for (int64_t i = 0; i < n; ++i) {
    const float angle = static_cast<float>(position) * frequency[i];
    const auto c = static_cast<float>(std::cos(static_cast<double>(angle)));
    const auto s = sign * static_cast<float>(std::sin(static_cast<double>(angle)));
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * c - b * s;
    x[2 * i + 1] = a * s + b * c;
  }
}

void Hadamard(float* x, int64_t count) {
  for (int64_t half = 1; half < count; half *= 2) {
    for (int64_t begin = 0; begin < count; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(count)));
  for (int64_t i = 0; i < count; ++i) x[i] *= scale;
}

// A page of n entries holds n rows of values, then n rows of scales.
void StoreEntry(const PagedView& view, int64_t page, int64_t slot, const float* x) {
  std::byte* base = view.page(page);
  switch (view.format) {
    case EntryFormat::kKvF32:
    case EntryFormat::kIndexF32:
      std::memcpy(base + slot * view.dim * 4, x, static_cast<size_t>(view.dim) * 4);
      return;
    case EntryFormat::kKvFp8: {
      const int64_t nope = view.dim - 64, row = nope + 128;
      const int64_t scale_row = EntryBytes(view.format, view.dim) - row;
      auto* values = reinterpret_cast<E4m3*>(base + slot * row);
      auto* rope = reinterpret_cast<Bf16*>(base + slot * row + nope);
      auto* scales = reinterpret_cast<E8m0*>(base + view.page_len * row + slot * scale_row);
      for (int64_t g = 0; g < nope / 64; ++g) {
        scales[g] = E4m3Scale(MaxMagnitude(x + g * 64, 64));
        const float scale = ToFloat(scales[g]);
        for (int64_t i = g * 64; i < g * 64 + 64; ++i) {
          values[i] = ToE4m3(Clamp(x[i] / scale, kE4m3Max));
        }
      }
      for (int64_t g = nope / 64; g < scale_row; ++g) scales[g] = {0};
      for (int64_t i = 0; i < 64; ++i) rope[i] = ToBf16(x[nope + i]);
      return;
    }
    case EntryFormat::kIndexFp4: {
      const int64_t row = view.dim / 2, scale_row = view.dim / 32;
      auto* values = reinterpret_cast<uint8_t*>(base + slot * row);
      auto* scales = reinterpret_cast<E8m0*>(base + view.page_len * row + slot * scale_row);
      for (int64_t g = 0; g < scale_row; ++g) {
        scales[g] = E2m1Scale(MaxMagnitude(x + g * 32, 32));
        const float scale = ToFloat(scales[g]);
        for (int64_t i = g * 32; i < g * 32 + 32; i += 2) {
          const uint8_t low = ToE2m1(Clamp(x[i] / scale, kE2m1Max));
          const uint8_t high = ToE2m1(Clamp(x[i + 1] / scale, kE2m1Max));
          values[i / 2] = static_cast<uint8_t>(low | high << 4);
        }
      }
      return;
    }
  }
}

void LoadEntry(const PagedView& view, int64_t page, int64_t slot, float* x) {
  const std::byte* base = view.page(page);
  switch (view.format) {
    case EntryFormat::kKvF32:
    case EntryFormat::kIndexF32:
      std::memcpy(x, base + slot * view.dim * 4, static_cast<size_t>(view.dim) * 4);
      return;
    case EntryFormat::kKvFp8: {
      const int64_t nope = view.dim - 64, row = nope + 128;
      const int64_t scale_row = EntryBytes(view.format, view.dim) - row;
      const auto* values = reinterpret_cast<const uint8_t*>(base + slot * row);
      const auto* rope = reinterpret_cast<const Bf16*>(base + slot * row + nope);
      const auto* scales =
          reinterpret_cast<const E8m0*>(base + view.page_len * row + slot * scale_row);
      const float* table = E4m3Table().data();
      for (int64_t i = 0; i < nope; ++i) x[i] = table[values[i]] * ToFloat(scales[i / 64]);
      for (int64_t i = 0; i < 64; ++i) x[nope + i] = ToFloat(rope[i]);
      return;
    }
    case EntryFormat::kIndexFp4: {
      const int64_t row = view.dim / 2, scale_row = view.dim / 32;
      const auto* values = reinterpret_cast<const uint8_t*>(base + slot * row);
      const auto* scales =
          reinterpret_cast<const E8m0*>(base + view.page_len * row + slot * scale_row);
      for (int64_t i = 0; i < view.dim; ++i) {
        const int code = (values[i / 2] >> (i % 2 * 4)) & 15;
        x[i] = kE2m1Table[static_cast<size_t>(code)] * ToFloat(scales[i / 32]);
      }
      return;
    }
  }
}

double Dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

float BlockedDot(const float* a, const float* b, int64_t count, int64_t block) {
  float sum = 0;
  for (int64_t begin = 0; begin < count; begin += block) {
    sum += static_cast<float>(Dot(a + begin, b + begin, std::min(block, count - begin)));
  }
  return sum;
}

}  // namespace seacliff
