// The packed layout: packing and unpacking are inverses, padding is zero, and the bytes stay what
// files with this layout id hold.
#include "kernels/common/packing.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/common/codec.h"

namespace seacliff {
namespace {

// A row-major matrix of random bytes, with its packed form.
class Packed {
 public:
  Packed(WeightFormat format, int64_t rows, int64_t cols, int64_t offset = 0) {
    row_major_ = {format, rows, cols, nullptr, nullptr};
    bytes_ = Random(rows * row_major_.row_bytes() + offset);
    row_major_.data = bytes_.data() + offset;
    const int64_t scale_rows = format == WeightFormat::kFp8 ? (rows + 127) / 128 : rows;
    scales_ = Random(scale_rows * row_major_.scale_cols());
    // Powers of two that products of a few stay finite with.
    for (uint8_t& scale : scales_) scale = static_cast<uint8_t>(120 + scale % 16);
    if (!scales_.empty()) row_major_.scales = reinterpret_cast<const E8m0*>(scales_.data());

    packed_bytes_.assign(static_cast<size_t>(PackedBytes(row_major_)), 0xa5);
    for (int64_t tile = 0; tile < TileCount(row_major_); ++tile) {
      PackTile(row_major_, tile, packed_bytes_.data() + tile * TileBytes(row_major_));
    }
    packed_ = row_major_;
    packed_.data = packed_bytes_.data();
    packed_.layout = WeightLayout::kTiles;
    if (format == WeightFormat::kMxfp4) packed_.scales = nullptr;
  }

  const Matrix& row_major() const { return row_major_; }
  const Matrix& packed() const { return packed_; }
  const std::vector<uint8_t>& bytes() const { return packed_bytes_; }

 private:
  std::vector<uint8_t> Random(int64_t count) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random_());
    return bytes;
  }

  std::mt19937 random_{7};
  std::vector<uint8_t> bytes_, scales_, packed_bytes_;
  Matrix row_major_, packed_;
};

struct Shape {
  WeightFormat format;
  int64_t rows, cols;
};
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (const WeightFormat format :
       {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kMxfp4}) {
    for (const int64_t rows : {1, 63, 64, 65, 128, 200}) {
      for (const int64_t cols : {32, 96, 128, 160, 416}) shapes.push_back({format, rows, cols});
    }
  }
  return shapes;
}

void ExpectUnpacks(const Packed& p) {
  const Matrix& m = p.row_major();
  std::vector<uint8_t> row(static_cast<size_t>(m.row_bytes()));
  std::vector<E8m0> scales(static_cast<size_t>(m.scale_cols()));
  for (int64_t r = 0; r < m.rows; ++r) {
    UnpackRow(p.packed(), r, row.data(), scales.data());
    const auto* want = static_cast<const uint8_t*>(m.data) + r * m.row_bytes();
    EXPECT_EQ(std::memcmp(row.data(), want, row.size()), 0) << "row " << r;
    if (m.format != WeightFormat::kMxfp4) continue;
    EXPECT_EQ(std::memcmp(scales.data(), m.scale_row(r), scales.size()), 0) << "row " << r;
  }
}

TEST(Packing, UnpackingIsItsInverse) {
  for (const Shape& s : Shapes()) {
    SCOPED_TRACE(testing::Message()
                 << int{static_cast<uint8_t>(s.format)} << ": " << s.rows << " x " << s.cols);
    ExpectUnpacks(Packed(s.format, s.rows, s.cols));
  }
}

// safetensors files may leave bf16 at any even address.
TEST(Packing, TakesRowsAlignedToOneElement) {
  ExpectUnpacks(Packed(WeightFormat::kBf16, 70, 96, 2));
  ExpectUnpacks(Packed(WeightFormat::kFp8, 70, 96, 1));
  ExpectUnpacks(Packed(WeightFormat::kMxfp4, 70, 96, 1));
}

TEST(Packing, PackedRowsDecodeAsRowMajorOnes) {
  for (const Shape& s : Shapes()) {
    const Packed p(s.format, s.rows, s.cols);
    std::vector<float> a(static_cast<size_t>(s.cols)), b(a);
    for (int64_t r = 0; r < s.rows; ++r) {
      DecodeRow(p.row_major(), r, a.data());
      DecodeRow(p.packed(), r, b.data());
      // As bits: random bf16 has NaN.
      ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0)
          << int{static_cast<uint8_t>(s.format)} << ": " << s.rows << " x " << s.cols << ", " << r;
    }
  }
}

TEST(Packing, PaddingRowsAreZero) {
  for (const Shape& s : Shapes()) {
    const Packed p(s.format, s.rows, s.cols);
    // Of the same matrix with whole tiles, in which rows beyond s.rows can be asked for.
    Matrix whole = p.packed();
    whole.rows = TileCount(whole) * kTileRows;
    std::vector<uint8_t> row(static_cast<size_t>(whole.row_bytes()));
    std::vector<E8m0> scales(static_cast<size_t>(whole.scale_cols()));
    for (int64_t r = s.rows; r < whole.rows; ++r) {
      UnpackRow(whole, r, row.data(), scales.data());
      for (const uint8_t b : row) ASSERT_EQ(b, 0);
      if (s.format != WeightFormat::kMxfp4) continue;
      for (const E8m0 scale : scales) ASSERT_EQ(scale.bits, 0);
    }
  }
}

TEST(Packing, SizesCountPaddingAndScales) {
  EXPECT_EQ(PackedBytes({WeightFormat::kBf16, 65, 64, nullptr, nullptr}), 128 * 64 * 2);
  EXPECT_EQ(PackedBytes({WeightFormat::kFp8, 65, 64, nullptr, nullptr}), 128 * 64);
  EXPECT_EQ(PackedBytes({WeightFormat::kMxfp4, 65, 64, nullptr, nullptr}), 128 * (32 + 2));
  EXPECT_FALSE(CanPack({WeightFormat::kF32, 64, 64, nullptr, nullptr}));
  EXPECT_FALSE(CanPack({WeightFormat::kFp8, 64, 48, nullptr, nullptr}));
  EXPECT_FALSE(CanPack(Packed(WeightFormat::kFp8, 64, 64).packed()));
}

// Files hold these bytes under kTileLayoutId. If this test fails, the layout has changed: give it
// another id, and put the new sums here.
TEST(Packing, TheLayoutIdNamesTheseBytes) {
  const auto sum = [](WeightFormat format) {
    const Packed p(format, 100, 160);
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (const uint8_t b : p.bytes()) hash = (hash ^ b) * 0x100000001b3;
    return hash;
  };
  EXPECT_EQ(kTileLayoutId, 1u);
  EXPECT_EQ(sum(WeightFormat::kBf16), 17096728359990498868u);
  EXPECT_EQ(sum(WeightFormat::kFp8), 17484273184401905414u);
  EXPECT_EQ(sum(WeightFormat::kMxfp4), 12444491284751917371u);
}

}  // namespace
}  // namespace seacliff
