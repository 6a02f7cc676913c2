// What the tests of the GPU share: the device or the words of its absence, and the models that the
// repository has.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "kernels/device.h"
#include "tests/configs.h"

namespace seacliff {

inline const std::string kTinyA = "/tests/data/golden/tiny-a";
inline const std::string kDemoModel = "/models/tiny";

// Whether OpenDevice's error is that there is none: others are of a device that is there, as after
// a fault in an earlier test.
inline bool NoDevice(const Status& status) {
  return status.code() == Code::kNotFound || status.code() == Code::kUnimplemented;
}

// Skips its tests on machines without a device.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenDevice(0, {});
    if (NoDevice(device.status())) {
      GTEST_SKIP() << "skipped: no device: " << device.status().message();
    }
    ASSERT_TRUE(device.ok()) << device.status().message();
    device_ = std::move(device).value();
  }
  Device& device() { return *device_; }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace seacliff
