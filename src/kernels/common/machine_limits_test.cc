// The machine's limits are measured, and in the right order of size.
#include "kernels/common/machine_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/isa.h"

namespace seacliff {
namespace {

TEST(MachineLimits, AreThereForWhatTheMachineHas) {
  ThreadPool pool(0);
  const MachineLimits limits = MeasureLimits(pool);
  EXPECT_GT(limits.read_gbps, 0.1);
  EXPECT_LT(limits.read_gbps, 1e5);
  EXPECT_GT(limits.f32_gflops, 0.01);
  EXPECT_EQ(limits.bf16_gflops > 0, CurrentIsa() >= Isa::kAvx512Bf16);
  EXPECT_EQ(limits.amx_gflops > 0, CurrentIsa() >= Isa::kAmx);
  EXPECT_GE(limits.best_gflops(), limits.f32_gflops);
  // The compiler must not have folded the twelve sums into one: no core has a clock of 6 GHz and
  // two units of 16 products, or of 32 products of bf16.
  EXPECT_LT(limits.f32_gflops, pool.threads() * 6.0 * 2 * 32);
  EXPECT_LT(limits.bf16_gflops, pool.threads() * 6.0 * 2 * 64);
  EXPECT_GT(limits.loop_us, 0);
  EXPECT_LT(limits.loop_us, 1e5);
  EXPECT_THAT(limits.Describe(), testing::HasSubstr("GB/s"));
}

}  // namespace
}  // namespace seacliff
