// A rank on each GPU: the choice of how a message is added up, and what becomes of errors.
#include "parallel/device_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/table.h"
#include "parallel/nccl.h"
#include "parallel/peer.h"

namespace seacliff {
#ifdef SEACLIFF_CUDA
namespace {

// The rows of all_reduce, as kernels/table.cc lists them.
enum AllReduceRow : size_t { kNccl, kTwoShot, kOneShot };

struct Message {
  int64_t ranks, bytes;
};

bool Takes(AllReduceRow row, const Message& m) {
  switch (row) {
    case kNccl:
      return m.ranks == 2 && m.bytes > (4 << 20);
    case kTwoShot:
      return m.ranks > 2 && m.bytes > (64 << 10);
    case kOneShot:
      return true;
  }
  return false;
}

// Why a row does not compete for messages of these ranks; "" if it does.
std::string WhyNot(AllReduceRow row, const Rows& rows, const Gpu& gpu, int64_t ranks,
                   const std::string& no_nccl) {
  std::string why(WhyNot(AllReduceRows()[row], Op::kAllReduce, rows, &gpu));
  if (!why.empty()) return why;
  if (row == kTwoShot && ranks <= 2) return "2 ranks";
  if (row != kNccl) return "";
  return rows.portable() && rows.forced(Op::kAllReduce).empty() ? "not portable" : no_nccl;
}

// What the ranks share.
class Group {
 public:
  Group(std::unique_ptr<PeerMemory> peers, Result<std::unique_ptr<Nccl>> nccl, double timeout,
        bool echo)
      : peers_(std::move(peers)), timeout_(timeout), echo_(echo) {
    if (!nccl.ok()) {
      no_nccl_ = nccl.status().message();
      return;
    }
    nccl_ = std::move(nccl).value();
    watch_ = std::thread([this] { Watch(); });
  }
  ~Group() {
    over_ = true;
    if (watch_.joinable()) watch_.join();
  }

  PeerMemory& peers() { return *peers_; }
  bool echo() const { return echo_; }
  Nccl* nccl() { return nccl_.get(); }
  const std::string& no_nccl() const { return no_nccl_; }

  void Abort(const Status& why) {
    const std::lock_guard lock(mutex_);
    if (error_.ok()) error_ = why;
    peers_->Stop();
  }
  Status error() const {
    const std::lock_guard lock(mutex_);
    const PeerMemory::Stopped stopped = peers_->stopped();
    if (error_.ok() && stopped.stopped) {
      error_ =
          Unavailable(fmt::format("rank {} did not come within {} s to where rank {} waits for it",
                                  stopped.missing, timeout_, stopped.rank));
    }
    return error_;
  }

 private:
  // What waits within NCCL does not look at the peers' word.
  void Watch() {
    while (!over_) {
      if (peers_->stopped().stopped) return nccl_->Abort();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  const std::unique_ptr<PeerMemory> peers_;
  const double timeout_;
  const bool echo_;
  std::unique_ptr<Nccl> nccl_;  // null: no_nccl_ says why
  std::string no_nccl_;
  std::atomic<bool> over_ = false;
  std::thread watch_;
  mutable std::mutex mutex_;
  mutable Status error_;
};

class DeviceRank final : public Communicator {
 public:
  DeviceRank(int32_t rank, int32_t size, std::shared_ptr<Group> group)
      : Communicator(rank, size), group_(std::move(group)) {}
  bool waits() const override { return !group_->echo(); }

  void AllReduce(Context& k, Act<2> v) override {
    if (v.size() == 0 || Ended(k)) return;
    const Message m = {size(), v.size() * SizeOf(v.dtype)};
    const bool forced = !k.rows().forced(Op::kAllReduce).empty();
    for (const AllReduceRow row : {kNccl, kTwoShot, kOneShot}) {
      if (!WhyNot(row, k.rows(), k.device()->gpu(), size(), group_->no_nccl()).empty()) continue;
      if (!forced && !Takes(row, m)) continue;
      if (row == kTwoShot && group_->echo()) continue;
      k.MarkRun(Op::kAllReduce, row);
      return Run(k, fmt::format("all_reduce={}", AllReduceRows()[row].row),
                 [&] { Launch(k, row, v); });
    }
    k.Fail(InvalidArgument(fmt::format("--kernels: all_reduce={} cannot run on these GPUs{}{}",
                                       k.rows().forced(Op::kAllReduce),
                                       group_->no_nccl().empty() ? "" : "; ", group_->no_nccl())));
  }

  void Gather(Context& k, View<const float, 2> v, View<float, 2> all) override {
    if (v.size() == 0 || Ended(k)) return;
    Run(k, "gather", [&] { group_->peers().Gather(k, rank(), v, all); });
  }

  void Abort(const Status& why) override { group_->Abort(why); }
  Status error() const override { return group_->error(); }

 private:
  bool Ended(Context& k) const {
    const Status error = group_->error();
    if (!error.ok()) k.Fail(error);
    return !error.ok();
  }
  void Launch(Context& k, AllReduceRow row, Act<2> v) {
    switch (row) {
      case kNccl:
        // The others are about to come: what hangs is told by the meeting, not within NCCL.
        group_->peers().Meet(k, rank());
        return group_->nccl()->AllReduce(k, rank(), v);
      case kTwoShot:
        return group_->peers().TwoShot(k, rank(), v);
      case kOneShot:
        return group_->peers().OneShot(k, rank(), v);
    }
  }
  static void Run(Context& k, const std::string& call, const std::function<void()>& launch) {
    const CallName name = {k.part(), call};
    if (k.wanted() != nullptr && !(*k.wanted())(name)) return;
    if (k.profile() == nullptr) return launch();
    k.profile()->Add(name, std::llround(1e3 * k.device()->Time(launch)), Work{});
  }

  const std::shared_ptr<Group> group_;
};

}  // namespace

Result<std::vector<std::unique_ptr<Communicator>>> MakeDeviceGroup(
    std::span<Device* const> devices, const DeviceGroupOptions& options) {
  const auto present = static_cast<int32_t>(devices.size());
  const int32_t size = std::max(present, options.ranks);
  const bool echo = size > present;
  SC_ASSIGN_OR_RETURN(
      auto peers,
      PeerMemory::Make(devices, size, static_cast<uint64_t>(options.timeout_seconds * 1e9)));
  auto nccl = options.nccl && !echo ? Nccl::Make(devices, options.nccl_library)
                                    : Result<std::unique_ptr<Nccl>>(NotFound("NCCL is not wanted"));
  // A library that was asked for and is not there is an error; otherwise it is one row less.
  if (!nccl.ok() && !options.nccl_library.empty() && present == 2) return nccl.status();
  const auto group =
      std::make_shared<Group>(std::move(peers), std::move(nccl), options.timeout_seconds, echo);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int32_t r = 0; r < present; ++r) {
    ranks.push_back(std::make_unique<DeviceRank>(r, size, group));
  }
  return ranks;
}

Result<double> MeasureLink(Device& from, Device& to) { return PeerMemory::MeasureLink(from, to); }

std::string DescribeCollectives(const Rows& rows, const std::vector<Gpu>& gpus,
                                const std::string& nccl_library) {
  const auto ranks = static_cast<int64_t>(gpus.size());
  const std::string not_direct = PeerMemory::WhyNotDirect(gpus);
  const auto nccl = Nccl::Find(nccl_library);
  std::string text =
      fmt::format("collectives of {} GPUs, which write {}\n{:<12} {:<9} {:<38} {}\n", ranks,
                  not_direct.empty() ? "each other's memory"
                                     : fmt::format("memory of the host, for {}", not_direct),
                  "op", "row", "needs", "here");
  const char* op = "all_reduce";
  bool chosen = false;
  for (const AllReduceRow row : {kNccl, kTwoShot, kOneShot}) {
    const RowInfo& info = AllReduceRows()[row];
    std::string here = WhyNot(row, rows, gpus[0], ranks, nccl.ok() ? "" : nccl.status().message());
    if (here.empty()) {
      here = chosen ? "where the rows above do not take it" : "CHOSEN";
      chosen = true;
      if (row == kNccl) here += ": " + nccl.value();
    }
    text += fmt::format("{:<12} {:<9} {:<38} {}\n", op, info.row,
                        info.needs[0] == '\0' ? "-" : info.needs, here);
    op = "";
  }
  return text;
}

#else

Result<std::vector<std::unique_ptr<Communicator>>> MakeDeviceGroup(std::span<Device* const>,
                                                                   const DeviceGroupOptions&) {
  return Unimplemented("this program was built without CUDA (make cuda builds it)");
}

Result<double> MeasureLink(Device&, Device&) {
  return Unimplemented("this program was built without CUDA (make cuda builds it)");
}

std::string DescribeCollectives(const Rows&, const std::vector<Gpu>&, const std::string&) {
  return "";
}

#endif

}  // namespace seacliff
