// One rank of a model, which is the whole model where there is but one: what it is made of, and its
// loading.
#pragma once

#include <memory>

#include "checkpoint/checkpoint.h"
#include "config/model_config.h"
#include "kernels/device.h"
#include "kernels/table.h"
#include "model/model.h"
#include "model/weights.h"
#include "parallel/communicator.h"
#include "seacliff/progress.h"

namespace seacliff {

struct RankParts {
  ModelConfig config, part;  // of the model, and of what the rank computes of it (model/slice.h)
  Checkpoint checkpoint;
  Rows rows;
  Communicator& comm;
};

inline Slice SliceOf(const Communicator& comm) { return {comm.rank(), comm.size()}; }

// The model's config.json.
inline Result<ModelConfig> ConfigOf(const ModelOptions& options) {
  return options.config_file.empty() ? LoadModelConfig(options.dir)
                                     : LoadModelConfigFile(options.config_file);
}

// The rank of `comm`, which is used until the last call of the model, on `device` or, if that is
// null, on the host. Rank 0 alone has logits.
Result<std::unique_ptr<Model>> LoadRank(const ModelOptions& options, std::shared_ptr<Device> device,
                                        Communicator& comm, const LoadProgress& progress);

}  // namespace seacliff
