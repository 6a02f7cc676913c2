// Packing and unpacking of weights, tile by tile.
#include "kernels/common/packing.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace seacliff {
namespace {

// Of a pair of columns of a tile, for kMxfp4 of 32 columns.
constexpr int64_t kFp4Block = 16 * kTileRows + kTileRows;

// Row-major bytes to tiles: the element of row r and step s goes to step s, row r.
template <typename T>
void Transpose(const Matrix& m, int64_t first, int64_t count, T* out) {
  const int64_t steps = m.row_bytes() / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kBlock = 64;  // so that reads and writes both stay in cache
  for (int64_t begin = 0; begin < steps; begin += kBlock) {
    const int64_t end = std::min(steps, begin + kBlock);
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* row = static_cast<const uint8_t*>(m.data) + (first + r) * m.row_bytes();
      for (int64_t s = begin; s < end; ++s) {  // by copy: bf16 rows are aligned to one element
        std::memcpy(out + s * kTileRows + r, row + s * static_cast<int64_t>(sizeof(T)), sizeof(T));
      }
    }
  }
}

void PackFp4(const Matrix& m, int64_t first, int64_t count, uint8_t* out) {
  for (int64_t block = 0; block < m.cols / 32; ++block, out += kFp4Block) {
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* row =
          static_cast<const uint8_t*>(m.data) + (first + r) * m.row_bytes() + block * 16;
      for (int64_t pair = 0; pair < 16; ++pair) out[pair * kTileRows + r] = row[pair];
      out[16 * kTileRows + r] = m.scale_row(first + r)[block].bits;
    }
  }
}

}  // namespace

int64_t TileBytes(const Matrix& m) {
  switch (m.format) {
    case WeightFormat::kBf16:
      return m.cols * 2 * kTileRows;
    case WeightFormat::kFp8:
      return m.cols * kTileRows;
    case WeightFormat::kMxfp4:
      return m.cols / 32 * kFp4Block;
    case WeightFormat::kF32:
      break;
  }
  SC_CHECK(false);
  return 0;
}

void PackTile(const Matrix& m, int64_t tile, uint8_t* out) {
  SC_CHECK(CanPack(m));
  const int64_t first = tile * kTileRows, count = std::min(kTileRows, m.rows - first);
  if (count < kTileRows) std::memset(out, 0, static_cast<size_t>(TileBytes(m)));
  switch (m.format) {
    case WeightFormat::kBf16:
      return Transpose(m, first, count, reinterpret_cast<uint32_t*>(out));
    case WeightFormat::kFp8:
      return Transpose(m, first, count, out);
    default:
      return PackFp4(m, first, count, out);
  }
}

void UnpackRow(const Matrix& m, int64_t row, uint8_t* data, E8m0* scales) {
  SC_CHECK(m.layout == WeightLayout::kTiles);
  const uint8_t* tile = TileData(m, row / kTileRows);
  const int64_t r = row % kTileRows;
  switch (m.format) {
    case WeightFormat::kBf16:
      for (int64_t s = 0; s < m.cols / 2; ++s) {
        std::memcpy(data + s * 4, tile + (s * kTileRows + r) * 4, 4);
      }
      return;
    case WeightFormat::kFp8:
      for (int64_t s = 0; s < m.cols; ++s) data[s] = tile[s * kTileRows + r];
      return;
    default:
      for (int64_t block = 0; block < m.cols / 32; ++block, tile += kFp4Block) {
        for (int64_t s = 0; s < 16; ++s) data[block * 16 + s] = tile[s * kTileRows + r];
        scales[block] = {tile[16 * kTileRows + r]};
      }
  }
}

}  // namespace seacliff
