// What does not fit is an error of its own; the device stays usable.
#include <gmock/gmock.h>

#include <vector>

#include "tests/gpu/gpu.h"

namespace seacliff {
namespace {

using testing::HasSubstr;

class DeviceErrors : public GpuTest {};

TEST_F(DeviceErrors, WhatDoesNotFitLeavesTheDeviceUsable) {
  constexpr int64_t kTooMuch = int64_t{1} << 50;
  const Buffer none = device().Allocate(kTooMuch, "the cache");
  EXPECT_EQ(none.data(), nullptr);
  const Status error = device().Synchronize();
  EXPECT_EQ(error.code(), Code::kExhausted) << error.message();
  EXPECT_THAT(error.message(), HasSubstr(std::to_string(kTooMuch) + " bytes for the cache"));
  EXPECT_FALSE(device().lost());

  std::vector<int32_t> values(1000, 7), back(1000, 0);
  const int64_t bytes = 4000;
  const Buffer some = device().Allocate(bytes);
  ASSERT_NE(some.data(), nullptr);
  device().Upload(some.data(), values.data(), bytes);
  device().Download(back.data(), some.data(), bytes);
  EXPECT_TRUE(device().Synchronize().ok());
  EXPECT_EQ(back, values);
}

TEST_F(DeviceErrors, WorkspaceThatDoesNotFitIsAnErrorOfItsStep) {
  EXPECT_EQ(device().Workspace(int64_t{1} << 50), nullptr);
  EXPECT_EQ(device().Synchronize().code(), Code::kExhausted);
  EXPECT_NE(device().Workspace(1 << 20), nullptr);
  EXPECT_TRUE(device().Synchronize().ok());
}

}  // namespace
}  // namespace seacliff
