// What the weights are, for tests that compare what became of them.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/device.h"
#include "model/weight_arrays.h"

namespace seacliff {

// Every array of the weights, which have no gaps: of host memory, or of a device's.
inline std::vector<std::vector<std::byte>> BytesOf(ModelWeights& weights,
                                                   Device* device = nullptr) {
  std::vector<std::vector<std::byte>> all;
  ForEachArray(weights, [&](const WeightArray& array) {
    EXPECT_EQ(array.pitch, array.bytes);
    std::vector<std::byte>& bytes = all.emplace_back(static_cast<size_t>(array.size()));
    if (device != nullptr) return device->Download(bytes.data(), array.data, array.size());
    std::memcpy(bytes.data(), array.data, bytes.size());
  });
  return all;
}

}  // namespace seacliff
