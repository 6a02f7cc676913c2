// A model that several ranks share: each a model of its own with its part of the weights
// (model/slice.h) and its own caches, which all do the same calls in the same order. To its caller
// it is one model, whose context and logits are those of rank 0.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "model/model.h"
#include "parallel/communicator.h"
#include "parallel/tcp.h"
#include "seacliff/progress.h"

namespace seacliff {

struct ParallelRank {
  std::unique_ptr<Communicator> comm;  // which the model uses
  std::unique_ptr<Model> model;
};

// The ranks of one process. Communicators go before devices, whose memory they use, and after all
// models: NCCL waits until no graph is left that holds a call of it.
struct RankGroup {
  std::vector<std::shared_ptr<Device>> devices;  // of the models; none on the host
  std::vector<ParallelRank> ranks;
  ~RankGroup() {
    for (ParallelRank& rank : ranks) rank.model.reset();
    for (ParallelRank& rank : ranks) rank.comm.reset();
  }
};

// The first rank runs in the caller's thread and each other one in its own. Calls return when all
// ranks have: on devices, when all have launched what they do. Where ranks disagree on whether a
// call succeeded, or one does not return within `timeout`, all are aborted: that call and all later
// ones give the same kUnavailable. A rank that hangs is left behind when the model ends. Nodes that
// follow (`others`, which may be null) are told every call first.
std::unique_ptr<Model> MakeParallelModel(std::unique_ptr<RankGroup> ranks,
                                         std::chrono::milliseconds timeout,
                                         std::unique_ptr<TcpNode> others = nullptr);

// Loads the ranks of this process, each in a thread: one for each communicator, on its device or,
// where `devices` is empty, on the host.
Result<std::unique_ptr<Model>> LoadRanks(const ModelOptions& options,
                                         std::vector<std::unique_ptr<Device>> devices,
                                         std::vector<std::unique_ptr<Communicator>> comms,
                                         const LoadProgress& progress,
                                         std::unique_ptr<TcpNode> others = nullptr);

// The ranks of options.tensor_parallel_size: on the GPUs of this host from 0 on if `device`, which
// is GPU 0, is not null.
Result<std::unique_ptr<Model>> LoadParallelModel(const ModelOptions& options,
                                                 std::unique_ptr<Device> device,
                                                 const LoadProgress& progress);

}  // namespace seacliff
