// How long steps took, counted in narrow buckets: what a median is read from, and what /metrics
// tells as a histogram.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace seacliff {

class StepTimes {
 public:
  // 40 bounds a decade, 6 % apart, from 0.1 ms to 10 s.
  static constexpr size_t kBounds = 201;
  // Seconds; three digits.
  static double Bound(size_t i);

  void Add(double seconds);

  // Of each bucket alone: above the bound before, up to bound i; the last one has none.
  const std::array<uint64_t, kBounds + 1>& counts() const { return counts_; }
  uint64_t count() const { return count_; }
  double seconds() const { return seconds_; }  // of all together

 private:
  std::array<uint64_t, kBounds + 1> counts_ = {};
  uint64_t count_ = 0;
  double seconds_ = 0;
};

}  // namespace seacliff
