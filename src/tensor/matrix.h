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

enum class WeightLayout : uint8_t {
  kRowMajor,  // as in the checkpoint, no padding
  kTiles,     // tiles of 64 rows, columns one after the other: kernels/common/packing.h
};

struct Matrix {
  WeightFormat format = WeightFormat::kBf16;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;
  // kFp8: [ceil(rows/128), ceil(cols/128)]; kMxfp4: [rows, cols/32], in tiles null: they stand
  // among the data.
  const E8m0* scales = nullptr;
  WeightLayout layout = WeightLayout::kRowMajor;
  // Where the matrix is some columns of a wider one, which a checkpoint's may be (model/slice.h):
  // bytes from one row to the next, and from one row of scales to the next. 0, which is all that
  // ops read: without gaps.
  int64_t pitch = 0, scale_pitch = 0;

  explicit operator bool() const { return data != nullptr; }
  // Of a row-major matrix.
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
  int64_t scale_rows() const {
    return format == WeightFormat::kFp8     ? (rows + 127) / 128
           : format == WeightFormat::kMxfp4 ? rows
                                            : 0;
  }
  const E8m0* scale_row(int64_t row) const {
    if (scales == nullptr) return nullptr;
    return scales + (format == WeightFormat::kFp8 ? row / 128 : row) * scale_cols();
  }
};

}  // namespace seacliff
