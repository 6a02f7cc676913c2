// The packed layout of weights that the cpu rows read (docs/formats.md): WeightLayout::kTiles.
//
// A tile holds 64 rows; the last one is filled up with zeros. Tiles follow one another, and in a
// tile the columns do, so that a product with one vector reads memory straight on and lanes are
// rows:
//   kFp8    for each column 64 e4m3; the scales stay a table beside, as in the checkpoint
//   kMxfp4  for each 32 columns: for each pair of them 64 bytes (low nibble: the even column), then
//           64 e8m0, the rows' scales
//   kBf16   for each pair of columns 64 pairs of bf16
// cols must be a multiple of 32.
#pragma once

#include <cstdint>

#include "tensor/matrix.h"

namespace seacliff {

inline constexpr int64_t kTileRows = 64;

// Names this layout in files (model/repack_cache.h): another number for every change of the bytes.
inline constexpr uint64_t kTileLayoutId = 1;

inline int64_t TileCount(const Matrix& m) { return (m.rows + kTileRows - 1) / kTileRows; }
int64_t TileBytes(const Matrix& m);
inline const uint8_t* TileData(const Matrix& m, int64_t tile) {
  return static_cast<const uint8_t*>(m.data) + tile * TileBytes(m);
}

// Whether a row-major matrix has a packed form.
inline bool CanPack(const Matrix& m) {
  return m.layout == WeightLayout::kRowMajor && m.format != WeightFormat::kF32 && m.cols % 32 == 0;
}
// Bytes of all its tiles.
inline int64_t PackedBytes(const Matrix& m) { return TileCount(m) * TileBytes(m); }

// Writes one tile of a row-major matrix.
void PackTile(const Matrix& m, int64_t tile, uint8_t* out);
// Row `row` of a packed matrix as PackTile found it: the row's bytes and, for kMxfp4, its scales.
void UnpackRow(const Matrix& m, int64_t row, uint8_t* data, E8m0* scales);

}  // namespace seacliff
