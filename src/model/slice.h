// Which part of a model one rank computes: its heads and groups, its part of the inner dimension of
// every expert, its part of the vocabulary. Everything else is on every rank.
#pragma once

#include <cstdint>

#include "base/pages.h"
#include "base/status.h"
#include "config/model_config.h"
#include "model/weights.h"

namespace seacliff {

// The part of a model that each of `ranks` ranks computes, as a config: heads, groups, the experts'
// inner dim and the vocabulary are cut. kInvalidArgument names what cannot be: parts must be equal,
// of an inner dim at least 128 wide, and where a stored matrix has scales for blocks, whole blocks.
Result<ModelConfig> RankConfig(const ModelConfig& config, int64_t ranks);

// Copies matrices that have gaps (Matrix::pitch) to host memory and points them at the copies.
// kExhausted if there is no memory for them, kInvalidArgument if their file cannot be read.
Result<PageMemory> CloseGaps(ModelWeights& weights);

}  // namespace seacliff
