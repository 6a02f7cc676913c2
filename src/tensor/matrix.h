// A weight matrix [rows, cols] in one of the stored formats, with its block scales.
#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace seacliff {

enum class WeightFormat : uint8_t {
  kF32,
  kBf16,
  kFp8,    // e4m3, one e8m0 scale for each 128 x 128 block (ragged at the edges)
  kMxfp4,  // e2m1 pairs (low nibble = even column), one e8m0 scale for each row and 32 columns
};

struct Matrix {
  WeightFormat format = WeightFormat::kBf16;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;    // row-major, no padding
  const E8m0* scales = nullptr;  // kFp8: [ceil(rows/128), ceil(cols/128)]; kMxfp4: [rows, cols/32]

  explicit operator bool() const { return data != nullptr; }
  int64_t row_bytes() const {
    switch (format) {
      case WeightFormat::kF32:
        return cols * 4;
      case WeightFormat::kBf16:
        return cols * 2;
      case WeightFormat::kFp8:
        return cols;
      case WeightFormat::kMxfp4:
        return cols / 2;
    }
    return 0;
  }
  // Scale elements in one row of the scale table.
  int64_t scale_cols() const {
    return format == WeightFormat::kFp8     ? (cols + 127) / 128
           : format == WeightFormat::kMxfp4 ? cols / 32
                                            : 0;
  }
  const E8m0* scale_row(int64_t row) const {
    if (scales == nullptr) return nullptr;
    return scales + (format == WeightFormat::kFp8 ? row / 128 : row) * scale_cols();
  }
  // Rows [begin, begin + count); for kFp8 `begin` must be a multiple of 128.
  Matrix Rows(int64_t begin, int64_t count) const {
    SC_CHECK(format != WeightFormat::kFp8 || begin % 128 == 0);
    Matrix m = *this;
    m.rows = count;
    m.data = static_cast<const char*>(data) + begin * row_bytes();
    m.scales = scale_row(begin);
    return m;
  }
};

}  // namespace seacliff
