// Sees that an engine with work makes steps. It has a thread of its own, so that it tells also when
// the engine's and the server's hang.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "seacliff/engine.h"

namespace seacliff::serve {

// Tells from what the engine says now and then whether it is stalled: there is work, and no step
// has ended for longer than the timeout; kFirstFactor times as long while the step under way is the
// first of its size.
class StallClock {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int kFirstFactor = 10;

  StallClock(Clock::duration timeout, Clock::time_point now) : timeout_(timeout), since_(now) {}

  // True while it is stalled.
  bool Look(const EngineStats& stats, Clock::time_point now);
  // How long no step has ended although there was work.
  Clock::duration waited(Clock::time_point now) const { return now - since_; }

 private:
  Clock::duration timeout_;
  Clock::time_point since_;
  std::optional<uint64_t> steps_;
};

class Watchdog {
 public:
  // Called on the watchdog's thread with why the engine is stalled, and with nothing when it goes
  // on. What the engine was doing and the stacks of all threads are in the log by then.
  using Tell = std::function<void(const std::optional<std::string>& reason)>;

  // The engine must outlive it.
  Watchdog(const Engine* engine, std::chrono::milliseconds timeout, Tell tell);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void Run();

  const Engine* engine_;
  const std::chrono::milliseconds timeout_;
  const Tell tell_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace seacliff::serve
