// The mailbox between the caller's thread and a rank's.
#include "model/rank_thread.h"

#include <fmt/format.h>

#include <thread>
#include <utility>

#include "kernels/profile.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;

// A thread that sleeps wakes late beside a step of a few milliseconds.
constexpr std::chrono::milliseconds kSpin(5);

}  // namespace

Status RunCommand(const RankCommand& command, Model& model, double* microseconds) {
  using Kind = RankCommand::Kind;
  switch (command.kind) {
    case Kind::kPrepare:
      return model.Prepare(command.batch, command.trace);
    case Kind::kPrepareTiming:
      return model.PrepareTiming();
    case Kind::kForward:
      return model.Forward(command.batch, command.trace);
    case Kind::kForwardMtp:
      return model.ForwardMtp(command.batch, command.next_ids);
    case Kind::kCopyRows:
      model.CopyRows(command.copies);
      break;
    case Kind::kTimeLastStep: {
      SC_ASSIGN_OR_RETURN(*microseconds, model.TimeLastStep());
      break;
    }
    case Kind::kStop:
      break;
  }
  return OkStatus();
}

std::shared_ptr<RankThread> RankThread::Start(std::shared_ptr<RankGroup> group, size_t rank) {
  auto started = std::make_shared<RankThread>();
  started->spins_ = group->ranks[rank].model->context().device() != nullptr;
  std::thread([thread = started, group = std::move(group), rank]() mutable {
    thread->Work(group->ranks[rank]);
    group.reset();
    const std::lock_guard lock(thread->mutex_);
    ++thread->done_;
    thread->changed_.notify_all();
  }).detach();
  return started;
}

void RankThread::Post(const RankCommand& command) {
  const std::lock_guard lock(mutex_);
  command_ = command;
  ++posted_;
  changed_.notify_all();
}

bool RankThread::Wait(Clock::time_point until) {
  std::unique_lock lock(mutex_);
  return Await(lock, until, [this] { return done_ == posted_; });
}

template <typename F>
bool RankThread::Await(std::unique_lock<std::mutex>& lock, Clock::time_point until,
                       const F& ready) {
  if (spins_ && !ready()) {
    lock.unlock();
    const Clock::time_point enough = Clock::now() + kSpin;
    while (!ready() && Clock::now() < enough) {
    }
    lock.lock();
  }
  return changed_.wait_until(lock, until, ready);
}

void RankThread::Work(ParallelRank& rank) {
  constexpr std::chrono::hours kLong(24);
  Device* const device = rank.model->context().device();
  while (true) {
    RankCommand command;
    {
      std::unique_lock lock(mutex_);
      if (!Await(lock, Clock::now() + kLong, [this] { return done_ != posted_; })) continue;
      command = command_;
    }
    if (command.kind == RankCommand::Kind::kStop) return;
    const auto lose = [&](const Status& why) {
      if (rank.comm->error().ok()) {
        rank.comm->Abort(Unavailable(fmt::format("rank {}: {}", rank.comm->rank(), why.message())));
      }
    };
    const Status status = Run(command, rank);
    if (status.code() == Code::kUnavailable) lose(status);
    {
      const std::lock_guard lock(mutex_);
      status_ = status;
      ++done_;
      changed_.notify_all();
    }
    // The others wait in their kernels for what this one computes: they must learn if it fails.
    if (device == nullptr) continue;
    const Status later = device->Synchronize();
    if (!later.ok()) lose(later);
  }
}

Status RankThread::Run(const RankCommand& command, ParallelRank& rank) {
  RankCommand own = command;
  ForwardTrace trace;
  if (command.trace != nullptr) {
    // What rank 0 shows this one must compute in the same way, and keeps to itself.
    trace.token = command.trace->token;
    const auto room = [&](const View<float, 2>& wanted, size_t index) {
      if (!wanted) return wanted;
      const auto count = static_cast<size_t>(wanted.size());
      if (margins_.size() < 2 * count) margins_.resize(2 * count);
      return View<float, 2>(margins_.data() + index * count, wanted.shape);
    };
    trace.expert_margin = room(command.trace->expert_margin, 0);
    trace.index_margin = room(command.trace->index_margin, 1);
    own.trace = &trace;
  }
  Profile profile;
  Context& context = rank.model->context();
  if (command.profiled) context.set_profile(&profile);
  context.set_wanted(command.wanted);
  double microseconds = 0;
  const Status status = RunCommand(own, *rank.model, &microseconds);
  context.set_profile(nullptr);
  context.set_wanted(nullptr);
  return status;
}

}  // namespace seacliff
