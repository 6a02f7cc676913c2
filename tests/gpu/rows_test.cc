// Which row of linear a device takes: that of sm_90a where it is built, fits and is not overruled.
#include <gmock/gmock.h>

#include "kernels/linear/op.h"
#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

class LinearRows : public GpuTest {
 protected:
  // The row that ran on this many tokens under `--kernels text`, or the error.
  std::string Ran(int64_t tokens, const char* text) {
    constexpr int64_t kSize = 256;
    const Buffer x = device().Allocate(tokens * kSize * 2), w = device().Allocate(kSize * kSize);
    const Buffer scales = device().Allocate(4), out = device().Allocate(tokens * kSize * 2);
    LinearArgs a;
    a.x = Act<2>(x.data(), DType::kBf16, {tokens, kSize});
    a.w = {WeightFormat::kFp8, kSize, kSize, w.data(),
           reinterpret_cast<const E8m0*>(scales.data())};
    a.quantise = true;
    a.out = Act<2>(out.data(), DType::kBf16, {tokens, kSize});
    Context k(1);
    k.set_device(&device());
    k.rows() = Rows::Parse(text).value();
    Linear(k, a);
    const Status error = k.TakeError(), late = device().Synchronize();
    EXPECT_TRUE(late.ok()) << late.message();
    return error.ok() ? RowsRun(k) : error.message();
  }
  bool HasSm90() {
    for (const auto& row : RowsOf<LinearArgs>()) {
      if (row.target == Target::kSm90) return row.run != nullptr && device().gpu().sm == 90;
    }
    return false;
  }
};

TEST_F(LinearRows, TheArchitecturesOwnComesFirst) {
  const char* many = HasSm90() ? "linear=sm90" : "linear=cuda";
  EXPECT_EQ(Ran(linear::kSm90Tokens, ""), many);
  EXPECT_EQ(Ran(linear::kSm90Tokens + 1, ""), many);
  EXPECT_EQ(Ran(linear::kSm90Tokens - 1, ""), "linear=cuda");
}

TEST_F(LinearRows, GiveWayWhenTheyAreToldTo) {
  EXPECT_EQ(Ran(300, "portable"), "linear=cuda");
  EXPECT_EQ(Ran(300, "linear=cuda"), "linear=cuda");
  if (!HasSm90()) GTEST_SKIP() << "skipped: no row of sm_90a here";
  EXPECT_EQ(Ran(300, "portable,linear=sm90"), "linear=sm90");
  EXPECT_THAT(Ran(1, "linear=sm90"), testing::HasSubstr("row 'sm90' cannot run these arguments"));
}

}  // namespace
}  // namespace seacliff
