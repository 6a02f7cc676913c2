// Weight decoding, rounding, rotation, and the exact bytes of cache pages.
#include "kernels/common/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace seacliff {
namespace {

std::vector<float> Normals(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

TEST(DecodeRow, Fp8TakesTheScaleOfItsBlock) {
  std::vector<uint8_t> bytes(130 * 200, 0x38);  // 1.0
  bytes[129 * 200 + 199] = 0xc4;                // -3.0
  const std::vector<E8m0> scales = {{127}, {128}, {126}, {130}};
  const Matrix w{WeightFormat::kFp8, 130, 200, bytes.data(), scales.data()};
  std::vector<float> row(200);
  DecodeRow(w, 127, row.data());
  EXPECT_EQ(row[127], 1.0f);
  EXPECT_EQ(row[128], 2.0f);
  DecodeRow(w, 129, row.data());
  EXPECT_EQ(row[0], 0.5f);
  EXPECT_EQ(row[198], 8.0f);
  EXPECT_EQ(row[199], -24.0f);
}

TEST(DecodeRow, Mxfp4PutsTheEvenColumnInTheLowNibble) {
  std::vector<uint8_t> bytes(2 * 32, 0);
  bytes[32 + 16] = 0xf2;  // row 1, columns 32 and 33: 1.0 and -6.0
  const std::vector<E8m0> scales = {{127}, {127}, {127}, {129}};
  const Matrix w{WeightFormat::kMxfp4, 2, 64, bytes.data(), scales.data()};
  std::vector<float> row(64);
  DecodeRow(w, 1, row.data());
  EXPECT_EQ(row[31], 0.0f);
  EXPECT_EQ(row[32], 4.0f);
  EXPECT_EQ(row[33], -24.0f);
}

TEST(RoundTrip, IsIdempotentAndKeepsRepresentableValues) {
  std::vector<float> x = Normals(320, 1);
  RoundTripE4m3(x.data(), 320, 128);  // the last group is ragged
  std::vector<float> again = x;
  RoundTripE4m3(again.data(), 320, 128);
  EXPECT_EQ(again, x);
  RoundTripE2m1(x.data(), 320);
  again = x;
  RoundTripE2m1(again.data(), 320);
  EXPECT_EQ(again, x);
}

TEST(RoundTrip, UsesTheScaleOfItsGroup) {
  std::vector<float> x(64, 0.3f);
  x[0] = 448.0f;  // scale 1: steps of 1/32 near 0.3
  x[32] = 0.75f;  // e2m1: scale 1/8, so 0.3 is 2.4 of the table
  std::vector<float> y = x;
  RoundTripE4m3(y.data(), 64, 64);
  EXPECT_EQ(y[0], 448.0f);
  EXPECT_EQ(y[1], 0.3125f);
  RoundTripE2m1(x.data(), 64);
  EXPECT_EQ(x[1], 0.0f);
  EXPECT_EQ(x[33], 0.25f);
}

TEST(Hadamard, IsAnOrthogonalInvolution) {
  const std::vector<float> x = Normals(128, 2);
  std::vector<float> y = x;
  Hadamard(y.data(), 128);
  EXPECT_NEAR(Dot(y.data(), y.data(), 128), Dot(x.data(), x.data(), 128), 1e-4);
  Hadamard(y.data(), 128);
  for (size_t i = 0; i < 128; ++i) EXPECT_NEAR(y[i], x[i], 1e-5);
}

TEST(Hadamard, IsInNaturalOrder) {
  std::vector<float> x = {0, 1, 0, 0};  // the second column of the Sylvester matrix
  Hadamard(x.data(), 4);
  EXPECT_EQ(x, (std::vector<float>{0.5f, -0.5f, 0.5f, -0.5f}));
}

TEST(Rotate, TurnsAdjacentPairsAndBack) {
  const float quarter = static_cast<float>(std::acos(-1.0) / 2);
  const float frequency[] = {quarter, 0};
  std::vector<float> x = {3, 4, 5, 6};
  Rotate(x.data(), 2, frequency, 1, 1);
  EXPECT_NEAR(x[0], -4, 1e-6);
  EXPECT_NEAR(x[1], 3, 1e-6);
  EXPECT_EQ(x[2], 5);
  EXPECT_EQ(x[3], 6);
  Rotate(x.data(), 2, frequency, 1, -1);
  EXPECT_NEAR(x[0], 3, 1e-6);
  EXPECT_NEAR(x[1], 4, 1e-6);
}

struct Page {
  std::vector<std::byte> bytes;
  PagedView view;
  Page(EntryFormat format, int64_t dim, int64_t page_len) {
    view.format = format;
    view.dim = dim;
    view.page_len = page_len;
    view.pages = 3;
    bytes.assign(static_cast<size_t>(3 * view.page_bytes()), std::byte{0xaa});
    view.data = bytes.data();
  }
  uint8_t at(int64_t i) const { return static_cast<uint8_t>(bytes[static_cast<size_t>(i)]); }
};

// 584 bytes an entry: n rows of 448 e4m3 and 64 bf16, then n rows of 7 scales and a pad.
TEST(Pages, KvEntriesStandWhereTheFormatSays) {
  constexpr int64_t kLen = 32, kPage = kLen * 584;
  Page page(EntryFormat::kKvFp8, 512, kLen);
  ASSERT_EQ(page.view.page_bytes(), kPage);
  std::vector<float> x(512);
  for (size_t i = 0; i < 448; ++i) x[i] = static_cast<float>(i / 64 + 1);
  for (size_t i = 448; i < 512; ++i) x[i] = 0.5f * static_cast<float>(i - 448);
  x[64 * 3] = -450;  // group 3: scale 2
  StoreEntry(page.view, 1, 5, x.data());

  const int64_t row = kPage + 5 * 576, scales = kPage + kLen * 576 + 5 * 8;
  const std::vector<int> want_scales = {119, 120, 120, 128, 121, 121, 121};
  for (int64_t g = 0; g < 7; ++g) EXPECT_EQ(page.at(scales + g), want_scales[g]) << g;
  EXPECT_EQ(page.at(scales + 7), 0);
  // 1.0 / 2^-8 = 256 = 2^8: exponent field 15, mantissa 0.
  EXPECT_EQ(page.at(row), 15 << 3);
  EXPECT_EQ(page.at(row + 64 * 3), 0x80 | (14 << 3) | 6);  // -225 rounds to -224 = -1.75 * 2^7
  for (int64_t i = 0; i < 64; ++i) {
    Bf16 v{};
    std::memcpy(&v, page.bytes.data() + row + 448 + 2 * i, 2);
    EXPECT_EQ(ToFloat(v), x[448 + i]);
  }
  // Nothing else was touched.
  for (int64_t i = 0; i < static_cast<int64_t>(page.bytes.size()); ++i) {
    if (i >= row && i < row + 576) continue;
    if (i >= scales && i < scales + 8) continue;
    ASSERT_EQ(page.at(i), 0xaa) << i;
  }
  std::vector<float> y(512), want = x;
  LoadEntry(page.view, 1, 5, y.data());
  RoundTripE4m3(want.data(), 448, 64);
  EXPECT_EQ(y, want);
}

// 68 bytes an entry: n rows of 64 nibble pairs, then n rows of 4 scales.
TEST(Pages, IndexEntriesStandWhereTheFormatSays) {
  constexpr int64_t kLen = 32, kPage = kLen * 68;
  Page page(EntryFormat::kIndexFp4, 128, kLen);
  ASSERT_EQ(page.view.page_bytes(), kPage);
  std::vector<float> x(128, 0.0f);
  x[0] = 6;       // code 7, scale 1
  x[1] = -1;      // code 10
  x[63] = 0.75f;  // group 1: scale 1/8, code 7 in the high nibble
  x[96] = 6.1f;   // group 3: scale 2, code 5
  StoreEntry(page.view, 2, 31, x.data());
  const int64_t row = 2 * kPage + 31 * 64, scales = 2 * kPage + kLen * 64 + 31 * 4;
  EXPECT_EQ(page.at(row), 0xa7);
  EXPECT_EQ(page.at(row + 31), 0x70);
  EXPECT_EQ(page.at(row + 48), 0x05);
  EXPECT_EQ(page.at(scales), 127);
  EXPECT_EQ(page.at(scales + 1), 124);
  EXPECT_EQ(page.at(scales + 2), 1);
  EXPECT_EQ(page.at(scales + 3), 128);
  for (int64_t i = 0; i < 2 * kPage; ++i) ASSERT_EQ(page.at(i), 0xaa) << i;
  std::vector<float> y(128);
  LoadEntry(page.view, 2, 31, y.data());
  EXPECT_EQ(y[0], 6.0f);
  EXPECT_EQ(y[1], -1.0f);
  EXPECT_EQ(y[63], 0.75f);
  EXPECT_EQ(y[96], 6.0f);
}

TEST(Pages, ExactEntriesAreF32) {
  for (const EntryFormat format : {EntryFormat::kKvF32, EntryFormat::kIndexF32}) {
    Page page(format, 128, 4);
    const std::vector<float> x = Normals(128, 3);
    StoreEntry(page.view, 1, 2, x.data());
    EXPECT_EQ(std::memcmp(page.bytes.data() + (4 + 2) * 512, x.data(), 512), 0);
    std::vector<float> y(128);
    LoadEntry(page.view, 1, 2, y.data());
    EXPECT_EQ(y, x);
  }
}

}  // namespace
}  // namespace seacliff
