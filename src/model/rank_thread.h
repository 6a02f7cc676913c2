// What every rank of a model does for one call, and the thread in which a rank does it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "model/parallel_model.h"

namespace seacliff {

struct RankCommand {
  enum class Kind : uint8_t {
    kPrepare,
    kForward,
    kForwardMtp,
    kCopyRows,
    kPrepareTiming,
    kTimeLastStep,
    kStop,
  };
  Kind kind = Kind::kStop;
  Batch batch = {};
  View<const int32_t, 1> next_ids = {};
  std::span<const RowCopy> copies = {};
  const ForwardTrace* trace = nullptr;
  bool profiled = false;  // rank 0 writes a profile, which changes how a step runs
  const std::function<bool(const CallName&)>* wanted = nullptr;  // of rank 0's context
};

// The command on one rank; kTimeLastStep sets `microseconds`.
Status RunCommand(const RankCommand& command, Model& model, double* microseconds);

class RankThread {
 public:
  // Of a rank but for the first. The thread goes on by itself: it shares what it needs.
  static std::shared_ptr<RankThread> Start(std::shared_ptr<RankGroup> group, size_t rank);

  // The command before must be done, unless this is kStop. What it refers to must last until it is
  // done.
  void Post(const RankCommand& command);
  // Whether what was posted is done before `until`.
  bool Wait(std::chrono::steady_clock::time_point until);
  // Of the command that is done.
  const Status& status() const { return status_; }

 private:
  void Work(ParallelRank& rank);
  Status Run(const RankCommand& command, ParallelRank& rank);
  // Waits until `ready`: for a while without sleeping, if the rank is on a device.
  template <typename F>
  bool Await(std::unique_lock<std::mutex>& lock, std::chrono::steady_clock::time_point until,
             const F& ready);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<uint64_t> posted_{0}, done_{0};
  RankCommand command_;
  Status status_;
  bool spins_ = false;
  std::vector<float> margins_;  // of a trace; nobody reads them
};

}  // namespace seacliff
