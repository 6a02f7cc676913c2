// One call, done by all ranks, and what becomes of their errors; the loading of ranks.
#include "model/parallel_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "base/cpus.h"
#include "base/log.h"
#include "model/memory_plan.h"
#include "model/nodes.h"
#include "model/rank.h"
#include "model/rank_thread.h"
#include "model/slice.h"
#include "model/step_shape.h"
#include "parallel/device_group.h"
#include "parallel/threads.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = RankCommand::Kind;

class ParallelModel final : public Model {
 public:
  ParallelModel(std::unique_ptr<RankGroup> group, std::chrono::milliseconds timeout,
                std::unique_ptr<TcpNode> others)
      : group_(std::move(group)),
        timeout_(timeout),
        others_(std::move(others)),
        first_(*group_->ranks[0].model) {
    for (size_t r = 1; r < group_->ranks.size(); ++r) {
      threads_.push_back(RankThread::Start(group_, r));
    }
  }
  ~ParallelModel() override {
    if (CheckRanks().ok()) Tell({});
    // A rank may wait for what will not come any more.
    for (ParallelRank& rank : group_->ranks) rank.comm->Abort(Unavailable("the model has ended"));
    for (const auto& thread : threads_) thread->Post({});
    const Clock::time_point until = Clock::now() + std::chrono::seconds(2);
    for (const auto& thread : threads_) thread->Wait(until);
  }

  const ModelConfig& config() const override { return first_.config(); }
  Context& context() override { return first_.context(); }
  bool runs_ahead() const override { return first_.runs_ahead(); }
  View<const float, 2> logits() const override { return first_.logits(); }

  Status Forward(const Batch& batch, const ForwardTrace* trace) override {
    RankCommand command{Kind::kForward};
    command.batch = batch;
    command.trace = trace;
    if (context().device() != nullptr) {
      command.kind = Kind::kPrepare;
      SC_RETURN_IF_ERROR(Run(command));
      command.kind = Kind::kForward;
    }
    return Run(command);
  }
  Status ForwardMtp(const Batch& batch, View<const int32_t, 1> next_ids) override {
    RankCommand command{Kind::kForwardMtp};
    command.batch = batch;
    command.next_ids = next_ids;
    return Run(command);
  }
  void CopyRows(std::span<const RowCopy> copies) override {
    if (copies.empty()) return;
    RankCommand command{Kind::kCopyRows};
    command.copies = copies;
    // What went wrong the next step tells.
    const Status status = Run(command);
    if (!status.ok()) SC_LOG_DEBUG("copying rows: {}", status.message());
  }
  Result<double> TimeLastStep() override {
    SC_RETURN_IF_ERROR(Run(RankCommand{Kind::kPrepareTiming}));
    SC_RETURN_IF_ERROR(Run(RankCommand{Kind::kTimeLastStep}));
    return microseconds_;
  }

  Status CheckRanks() override {
    for (const ParallelRank& rank : group_->ranks) {
      const Status error = rank.comm->error();
      if (!error.ok()) return Unavailable(error.message());
    }
    return OkStatus();
  }

 private:
  Status Run(RankCommand command) {
    SC_RETURN_IF_ERROR(CheckRanks());
    command.profiled = context().profile() != nullptr;
    command.wanted = context().wanted();
    Tell(command);
    for (const auto& thread : threads_) thread->Post(command);
    const Status first = RunCommand(command, first_, &microseconds_);
    return Settle(first);
  }

  void Tell(const RankCommand& command) {
    if (others_ == nullptr) return;
    const Status told = others_->Send(EncodeCommand(command));
    if (!told.ok()) Abort(told.message());
  }

  // What all ranks together make of a call, once rank 0 is done with it.
  Status Settle(const Status& first) {
    // After a failure on one the others come at once, unless they wait for what it left out.
    constexpr std::chrono::milliseconds kPatience(2000);
    const Clock::time_point until =
        Clock::now() + (first.ok() ? timeout_ : std::min(timeout_, kPatience));
    size_t failed = first.ok() ? 0 : 1;
    std::string why = first.ok() ? "" : RankError(0, first);
    if (first.code() == Code::kUnavailable) Abort(why);
    for (size_t r = 1; r < group_->ranks.size(); ++r) {
      RankThread& thread = *threads_[r - 1];
      if (!thread.Wait(until)) {
        if (why.empty()) {
          why =
              fmt::format("rank {} did not end a step within {} ms", NumberOf(r), timeout_.count());
        }
        Abort(why);
        return CheckRanks();
      }
      if (thread.status().ok()) continue;
      if (failed++ == 0) why = RankError(r, thread.status());
    }
    SC_RETURN_IF_ERROR(CheckRanks());
    if (failed == 0) return OkStatus();
    // The same error on all: their caches agree on what was done.
    if (failed == group_->ranks.size() && first.code() != Code::kUnavailable) return first;
    Abort(why);
    return CheckRanks();
  }
  int32_t NumberOf(size_t r) const { return group_->ranks[r].comm->rank(); }
  std::string RankError(size_t r, const Status& status) const {
    return fmt::format("rank {}: {}", NumberOf(r), status.message());
  }
  void Abort(const std::string& why) {
    for (ParallelRank& rank : group_->ranks) rank.comm->Abort(Unavailable(why));
  }

  const std::shared_ptr<RankGroup> group_;
  const std::chrono::milliseconds timeout_;
  const std::unique_ptr<TcpNode> others_;
  Model& first_;
  std::vector<std::shared_ptr<RankThread>> threads_;  // of the ranks after the first
  double microseconds_ = 0;
};

std::chrono::milliseconds TimeoutOf(const ModelOptions& options) {
  return std::chrono::milliseconds(std::llround(options.rank_timeout * 1000));
}

// Refuses what rank 0 alone cannot stand for.
Status CheckEcho(const ModelOptions& options, const Device* device) {
  if (options.load_format != "dummy") {
    return InvalidArgument("echo_ranks: replies mean nothing; add --load-format dummy");
  }
  if (options.nodes > 1 || options.tensor_parallel_size < 2) {
    return InvalidArgument("echo_ranks: for two ranks or more of one host");
  }
  if (device == nullptr) return InvalidArgument("echo_ranks: needs a GPU");
  return OkStatus();
}

// The GPUs of ranks, the first of which is open.
Result<std::vector<std::unique_ptr<Device>>> OpenDevices(std::unique_ptr<Device> first,
                                                         int32_t ranks,
                                                         const DeviceLimits& limits) {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::move(first));
  for (int32_t r = 1; r < ranks; ++r) {
    auto device = OpenDevice(r, limits);
    if (!device.ok()) {
      return Status(device.status().code(),
                    fmt::format("tensor_parallel_size {}: {}", ranks, device.status().message()));
    }
    SC_LOG_INFO("rank {} on {}", r, device.value()->gpu().name);
    devices.push_back(std::move(device).value());
  }
  return devices;
}

}  // namespace

std::unique_ptr<Model> MakeParallelModel(std::unique_ptr<RankGroup> ranks,
                                         std::chrono::milliseconds timeout,
                                         std::unique_ptr<TcpNode> others) {
  return std::make_unique<ParallelModel>(std::move(ranks), timeout, std::move(others));
}

Result<std::unique_ptr<Model>> LoadRanks(const ModelOptions& options,
                                         std::vector<std::unique_ptr<Device>> devices,
                                         std::vector<std::unique_ptr<Communicator>> comms,
                                         const LoadProgress& progress,
                                         std::unique_ptr<TcpNode> others) {
  auto group = std::make_unique<RankGroup>();
  for (auto& device : devices) group->devices.push_back(std::move(device));
  for (auto& comm : comms) group->ranks.push_back({std::move(comm), nullptr});
  ModelOptions rank_options = options;
  if (!devices.empty() && options.workspace == 0) {
    // Where it grew in a step, a rank would wait for its device while others wait for the rank.
    SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(options));
    SC_ASSIGN_OR_RETURN(const ModelConfig part, RankConfig(config, group->ranks[0].comm->size()));
    const int64_t pages = std::max(options.window_pages, options.compressed_pages);
    rank_options.workspace = WorkspaceOf(part, config.vocab_size, options.max_tokens,
                                         PaddedSeqs(options.slots), PaddedWidth(pages))
                                 .bytes;
  }
  const int32_t threads = options.threads == 0 ? CoresOfOurOwn() : options.threads;
  rank_options.threads = std::max(1, threads / static_cast<int32_t>(group->ranks.size()));
  std::vector<Status> errors(group->ranks.size());
  const auto load = [&](size_t r) {
    ParallelRank& rank = group->ranks[r];
    auto model = LoadRank(rank_options, devices.empty() ? nullptr : group->devices[r], *rank.comm,
                          r == 0 ? progress : LoadProgress());
    errors[r] = model.status();
    if (model.ok()) rank.model = std::move(model).value();
  };
  std::vector<std::thread> loading;
  for (size_t r = 1; r < group->ranks.size(); ++r) loading.emplace_back(load, r);
  load(0);
  for (std::thread& thread : loading) thread.join();
  for (const Status& error : errors) SC_RETURN_IF_ERROR(error);
  if (others != nullptr) SC_RETURN_IF_ERROR(others->AwaitReports());
  return MakeParallelModel(std::move(group), TimeoutOf(options), std::move(others));
}

Result<std::unique_ptr<Model>> LoadParallelModel(const ModelOptions& options,
                                                 std::unique_ptr<Device> device,
                                                 const LoadProgress& progress) {
  const int32_t count = options.tensor_parallel_size;
  SC_ASSIGN_OR_RETURN(const ModelConfig config, ConfigOf(options));
  SC_RETURN_IF_ERROR(RankConfig(config, count).status());  // before anything is opened
  if (options.echo_ranks) SC_RETURN_IF_ERROR(CheckEcho(options, device.get()));
  if (options.nodes > 1) {
    if (device != nullptr) {
      return Unimplemented("nnodes: several hosts share a model on the CPU alone (--device cpu)");
    }
    SC_ASSIGN_OR_RETURN(auto node, JoinNodes(options));
    auto comms = node->TakeRanks();
    return LoadRanks(options, {}, std::move(comms), progress, std::move(node));
  }
  if (device == nullptr) {
    return LoadRanks(options, {}, MakeThreadGroup(count, TimeoutOf(options)), progress);
  }
  DeviceGroupOptions group;
  group.ranks = count;
  group.timeout_seconds = options.rank_timeout;
  group.nccl_library = options.nccl_library;
  SC_ASSIGN_OR_RETURN(const Rows rows, Rows::Parse(options.kernels));
  group.nccl = !rows.portable() || rows.forced(Op::kAllReduce) == "nccl";
  SC_ASSIGN_OR_RETURN(auto devices, OpenDevices(std::move(device), options.echo_ranks ? 1 : count,
                                                options.device_limits));
  std::vector<Device*> open;
  for (const auto& d : devices) open.push_back(d.get());
  SC_ASSIGN_OR_RETURN(auto comms, MakeDeviceGroup(open, group));
  return LoadRanks(options, std::move(devices), std::move(comms), progress);
}

}  // namespace seacliff
