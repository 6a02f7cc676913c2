// Rotation frequencies, with YaRN's ramp between unscaled and divided frequencies.
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace seacliff {
namespace {

// The pair index whose wavelength fits `rotations` times into the original context.
double PairOf(const ModelConfig& c, double base, double rotations) {
  const double length = static_cast<double>(c.rope_original_len);
  return static_cast<double>(c.rope_dim) * std::log(length / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(base));
}

}  // namespace

std::vector<float> RopeFrequencies(const ModelConfig& config, int64_t ratio) {
  const double base = ratio == 0 ? config.rope_theta : config.compress_rope_theta;
  const int64_t pairs = config.rope_dim / 2;
  const double last = static_cast<double>(config.rope_dim - 1);
  const double low = std::max(0.0, std::floor(PairOf(config, base, config.rope_beta_fast)));
  double high = std::min(last, std::ceil(PairOf(config, base, config.rope_beta_slow)));
  if (low == high) high += 0.001;  // a step instead of a division by zero
  std::vector<float> frequencies;
  for (int64_t i = 0; i < pairs; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.rope_dim);
    double f = std::pow(base, -exponent);
    if (ratio != 0) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f = f / config.rope_factor * ramp + f * (1 - ramp);
    }
    frequencies.push_back(static_cast<float>(f));
  }
  return frequencies;
}

}  // namespace seacliff
