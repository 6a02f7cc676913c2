// The bounds are whole numbers of a unit of their decade, so that they print with three digits.
#include "seacliff/step_times.h"

#include <algorithm>
#include <cmath>

namespace seacliff {
namespace {

constexpr size_t kADecade = 40;

std::array<double, StepTimes::kBounds> MakeBounds() {
  std::array<double, StepTimes::kBounds> bounds{};
  for (size_t i = 0; i < bounds.size(); ++i) {
    const double digits = std::pow(10.0, static_cast<double>(i % kADecade) / kADecade);
    bounds[i] = std::round(100 * digits) / std::pow(10.0, 6 - static_cast<double>(i / kADecade));
  }
  return bounds;
}

const std::array<double, StepTimes::kBounds>& Bounds() {
  static const auto bounds = MakeBounds();
  return bounds;
}

}  // namespace

double StepTimes::Bound(size_t i) { return Bounds()[i]; }

void StepTimes::Add(double seconds) {
  const auto& bounds = Bounds();
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), seconds) - bounds.begin();
  ++counts_[static_cast<size_t>(bucket)];
  ++count_;
  seconds_ += seconds;
}

}  // namespace seacliff
