// What the tests of the GPU share: the device or the words of its absence, and where the repository
// lies on the machine that they run on.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "kernels/device.h"

namespace seacliff {

// $SEACLIFF_SOURCE_DIR, else where this program was built.
inline std::string Repository() {
  const char* folder = std::getenv("SEACLIFF_SOURCE_DIR");
  return folder != nullptr ? folder : SEACLIFF_SOURCE_DIR;
}

inline const std::string kTinyA = "/tests/data/golden/tiny-a";
inline const std::string kDemoModel = "/models/tiny";

// Skips its tests on machines without a device.
class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenDevice(0, {});
    if (!device.ok()) GTEST_SKIP() << "skipped: no device: " << device.status().message();
    device_ = std::move(device).value();
  }
  Device& device() { return *device_; }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace seacliff
