// A model that lives on a GPU: weights, caches and activations there, the step's numbers copied
// over; logits stay there. Checkpoint numerics only.
#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"
#include "kernels/device.h"
#include "model/model.h"
#include "seacliff/progress.h"

namespace seacliff {

Result<std::unique_ptr<Model>> LoadDeviceModel(const ModelOptions& options, ModelConfig config,
                                               Checkpoint checkpoint, Rows rows,
                                               std::unique_ptr<Device> device,
                                               const LoadProgress& progress);

}  // namespace seacliff
