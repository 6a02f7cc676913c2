// The watchdog's thread.
#include "serve/watchdog.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/stacks.h"

namespace seacliff::serve {

bool StallClock::Look(const EngineStats& stats, Clock::time_point now) {
  if (stats.steps != steps_ || stats.running + stats.waiting == 0) {
    steps_ = stats.steps;
    since_ = now;
  }
  return waited(now) > timeout_ * (stats.first_of_size ? kFirstFactor : 1);
}

Watchdog::Watchdog(const Engine* engine, std::chrono::milliseconds timeout, Tell tell)
    : engine_(engine), timeout_(timeout), tell_(std::move(tell)), thread_([this] { Run(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watchdog::Run() {
  using Clock = StallClock::Clock;
  NameThread("watchdog");
  const auto interval = std::clamp<std::chrono::milliseconds>(
      timeout_ / 10, std::chrono::milliseconds(10), std::chrono::milliseconds(250));
  StallClock clock(timeout_, Clock::now());
  bool stalled = false;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval, [this] { return stop_; })) {
    const EngineStats stats = engine_->stats();
    const Clock::time_point now = Clock::now();
    if (clock.Look(stats, now) == stalled) continue;
    stalled = !stalled;
    if (!stalled) {
      SC_LOG_WARN("the engine goes on");
      tell_(std::nullopt);
      continue;
    }
    const std::string reason = fmt::format(
        "the engine has {} requests and has ended no step for {:.0f} s",
        stats.running + stats.waiting, std::chrono::duration<double>(clock.waited(now)).count());
    SC_LOG_ERROR("{}\n{}{}", reason, engine_->Describe(), StacksOfAllThreads());
    tell_(reason);
  }
}

}  // namespace seacliff::serve
