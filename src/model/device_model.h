// A model that lives on a GPU: weights, caches and activations there, the step's numbers copied
// over; logits stay there. Checkpoint numerics only.
#pragma once

#include <memory>

#include "kernels/device.h"
#include "model/rank.h"
#include "seacliff/progress.h"

namespace seacliff {

Result<std::unique_ptr<Model>> LoadDeviceModel(const ModelOptions& options, RankParts parts,
                                               std::shared_ptr<Device> device,
                                               const LoadProgress& progress);

}  // namespace seacliff
