// Views, activations, buffers, weight matrices and the sizes of cache entries.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/matrix.h"
#include "tensor/paged_view.h"
#include "tensor/view.h"

namespace seacliff {
namespace {

TEST(View, IsRowMajorAndTakesSubviews) {
  std::vector<int32_t> data(24);
  std::iota(data.begin(), data.end(), 0);
  const View<int32_t, 3> v(data.data(), {2, 3, 4});
  EXPECT_EQ(v.size(), 24);
  EXPECT_EQ(v(1, 2, 3), 23);
  EXPECT_EQ(v(1, 0, 2), 14);
  EXPECT_EQ(v[1][2](3), 23);
  EXPECT_EQ(v[1].shape, (std::array<int64_t, 2>{3, 4}));
  const View<const int32_t, 3> constant = v;
  EXPECT_EQ(constant(0, 1, 1), 5);
  EXPECT_FALSE((View<float, 1>()));
}

TEST(View, FollowsItsStrides) {
  std::vector<int32_t> data(12);
  std::iota(data.begin(), data.end(), 0);
  View<int32_t, 2> v(data.data(), {3, 4});
  v.data += 1;
  v.shape[1] = 2;
  EXPECT_EQ(v(2, 1), 10);
  EXPECT_EQ(v[2](1), 10);
}

TEST(Act, StoresInItsDtype) {
  std::vector<float> memory(6);
  const Act<2> exact(memory.data(), DType::kF32, {2, 3}), bf16(memory.data(), DType::kBf16, {2, 3});
  exact.Store(4, 1.0039f);
  EXPECT_EQ(exact.Load(4), 1.0039f);
  bf16.Store(4, 1.0039f);
  EXPECT_EQ(bf16.Load(4), RoundToBf16(1.0039f));
  EXPECT_EQ(bf16.Rows(1, 1).Load(1), bf16.Load(4));
  EXPECT_EQ(bf16.Rows(1, 1).shape[0], 1);
  EXPECT_EQ((bf16.Reshape<3>({1, 2, 3}).Load(4)), bf16.Load(4));
}

TEST(Act, NoRowsIsFine) {
  const Act<2> none(nullptr, DType::kBf16, {0, 8});
  EXPECT_EQ(none.size(), 0);
  EXPECT_EQ(none.Rows(0, 0).size(), 0);
}

TEST(Buffer, IsAlignedAndZero) {
  for (int64_t bytes : {0, 1, 63, 64, 1000}) {
    const Buffer b = Buffer::Host(bytes);
    ASSERT_NE(b.data(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 64, 0u);
    EXPECT_EQ(b.bytes(), bytes);
    for (int64_t i = 0; i < bytes; ++i) EXPECT_EQ(static_cast<char*>(b.data())[i], 0);
  }
  EXPECT_DEATH((Buffer::Host(12).As<float, 1>({4})), "SC_CHECK");
}

TEST(Matrix, FindsItsScales) {
  std::vector<uint8_t> bytes(300 * 256);
  std::vector<E8m0> scales(3 * 2);
  const Matrix fp8{WeightFormat::kFp8, 300, 256, bytes.data(), scales.data()};
  EXPECT_EQ(fp8.row_bytes(), 256);
  EXPECT_EQ(fp8.scale_cols(), 2);
  EXPECT_EQ(fp8.scale_row(127), scales.data());
  EXPECT_EQ(fp8.scale_row(128), scales.data() + 2);

  std::vector<E8m0> row_scales(4 * 8);
  const Matrix mxfp4{WeightFormat::kMxfp4, 4, 256, bytes.data(), row_scales.data()};
  EXPECT_EQ(mxfp4.row_bytes(), 128);
  EXPECT_EQ(mxfp4.scale_row(3), row_scales.data() + 24);
}

// spec/model.md 4.1, 4.2.
TEST(PagedView, EntryBytes) {
  EXPECT_EQ(EntryBytes(EntryFormat::kKvFp8, 512), 584);
  EXPECT_EQ(EntryBytes(EntryFormat::kIndexFp4, 128), 68);
  EXPECT_EQ(EntryBytes(EntryFormat::kKvF32, 512), 2048);
  EXPECT_EQ(EntryBytes(EntryFormat::kIndexF32, 128), 512);
  PagedView v;
  v.format = EntryFormat::kKvFp8;
  v.dim = 512;
  v.page_len = 128;
  EXPECT_EQ(v.page_bytes(), 128 * 584);
}

}  // namespace
}  // namespace seacliff
