// Rotation frequencies of a layer (spec/model.md 1.2).
#pragma once

#include <vector>

#include "config/model_config.h"

namespace seacliff {

// Radians a position for each of the rope_dim / 2 pairs: plain for window-only layers, YaRN-scaled
// with the compressed base for the others.
std::vector<float> RopeFrequencies(const ModelConfig& config, int64_t ratio);

}  // namespace seacliff
