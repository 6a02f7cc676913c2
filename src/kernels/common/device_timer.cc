// Calls in a graph, replayed and timed by the device's own clock.
#include "kernels/common/device_timer.h"

#include <algorithm>
#include <cmath>

namespace seacliff {
namespace {

constexpr int64_t kLeastBetweenUses = 170'000'000;  // bytes
constexpr double kReplayUs = 1500, kWarmUpUs = 60e3;
constexpr size_t kReplays = 11;
// Calls so slow that this is reached are timed by fewer replays, but no fewer than three.
constexpr double kMostUs = 2e6;

}  // namespace

int64_t RotationCopies(int64_t bytes, int64_t l2_bytes, int64_t most) {
  const int64_t between = std::max(kLeastBetweenUses, 2 * l2_bytes + 1);
  const int64_t others = (between + std::max<int64_t>(bytes, 1) - 1) / std::max<int64_t>(bytes, 1);
  return std::max<int64_t>(2, std::min(most, others + 1));
}

int64_t ListRepeats(double list_us) {
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(kReplayUs / list_us)));
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Result<CallTiming> TimeCalls(Device& device, int64_t copies,
                             const std::function<void(int64_t)>& call) {
  std::unique_ptr<DeviceGraph> graph;
  int64_t calls = 0;
  const auto record = [&](int64_t repeats) {
    calls = copies * repeats;
    graph = device.Record([&] {
      for (int64_t i = 0; i < calls; ++i) call(i % copies);
    });
    return graph != nullptr;
  };
  const auto replay = [&] { return device.Time([&] { device.Run(*graph); }); };

  if (!record(1)) return device.Synchronize();
  replay();
  const int64_t repeats = ListRepeats(std::max(replay(), 1.0));
  if (repeats > 1 && !record(repeats)) return device.Synchronize();
  for (double spent = 0; spent < kWarmUpUs;) spent += std::max(replay(), 1.0);
  std::vector<double> times;
  double spent = 0;
  while (times.size() < 3 || (times.size() < kReplays && spent < kMostUs)) {
    times.push_back(replay());
    spent += times.back();
  }
  const Status status = device.Synchronize();
  if (!status.ok()) return status;
  return CallTiming{Median(times) / static_cast<double>(calls), calls};
}

Result<CallTiming> TimeWaitingCalls(Device& device, int64_t copies,
                                    const std::function<void(int64_t)>& call) {
  std::vector<double> times;
  double spent = 0;
  for (int64_t i = 0; spent < 2 * kWarmUpUs || times.size() < kReplays; ++i) {
    const double us = std::max(device.Time([&] { call(i % copies); }), 1.0);
    if (spent >= kWarmUpUs) times.push_back(us);
    spent += us;
  }
  const Status status = device.Synchronize();
  if (!status.ok()) return status;
  return CallTiming{Median(std::move(times)), 1};
}

}  // namespace seacliff
