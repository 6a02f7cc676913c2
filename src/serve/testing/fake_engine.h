// An engine without a model: each request gets the tokens of a script, one a step, from a thread of
// its own, as the real one would give them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "seacliff/engine.h"

namespace seacliff::serve::testing {

class FakeEngine : public Engine {
 public:
  FakeEngine() : thread_([this] { Loop(); }) {}
  ~FakeEngine() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  // What a request is answered with; after its last token it goes on with the first.
  std::function<std::vector<int32_t>(const Request&)> script = [](const Request&) {
    return std::vector<int32_t>{1};
  };
  std::function<Status(const Request&)> admit = [](const Request&) { return OkStatus(); };
  // A step that ends with this error, after so many tokens.
  std::function<std::pair<int, Status>(const Request&)> fail = [](const Request&) {
    return std::pair(-1, OkStatus());
  };
  int32_t max_len = 4096;
  int32_t vocab = 300;
  int tokens_a_step = 1;
  std::chrono::microseconds step_time{0};

  void Pause(bool paused) {
    {
      std::lock_guard lock(mutex_);
      paused_ = paused;
    }
    changed_.notify_all();
  }
  std::vector<Request> seen() const {
    std::lock_guard lock(mutex_);
    return seen_;
  }
  size_t live() const {
    std::lock_guard lock(mutex_);
    return live_.size();
  }
  int cancels() const { return cancels_; }
  // Waits, at most a few seconds, until `count` requests live.
  bool WaitLive(size_t count) const {
    for (int i = 0; i < 1000; ++i) {
      if (live() == count) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  RequestId NextId() override { return ++last_id_; }
  Status Submit(Request request, EventSink sink) override {
    const Status status = admit(request);
    if (!status.ok()) return status;
    {
      std::lock_guard lock(mutex_);
      seen_.push_back(request);
      Live live{request, std::move(sink), script(request), 0, false};
      live_.emplace(request.id, std::move(live));
    }
    changed_.notify_all();
    return OkStatus();
  }
  void Cancel(RequestId id) override {
    {
      std::lock_guard lock(mutex_);
      const auto found = live_.find(id);
      if (found == live_.end()) return;
      found->second.cancelled = true;
      ++cancels_;
    }
    changed_.notify_all();
  }
  int32_t max_model_len() const override { return max_len; }
  int32_t vocab_size() const override { return vocab; }
  EngineStats stats() const override {
    std::lock_guard lock(mutex_);
    EngineStats stats;
    stats.running = static_cast<int32_t>(live_.size());
    stats.waiting = waiting;
    stats.cache_usage = 0.25;
    stats.pages = 64;
    stats.steps = steps_;
    stats.generated_tokens = generated_;
    return stats;
  }
  std::string Describe() const override { return "a fake engine\n"; }
  std::atomic<int32_t> waiting{0};

 private:
  struct Live {
    Request request;
    EventSink sink;
    std::vector<int32_t> tokens;
    int given = 0;
    bool cancelled = false;
  };

  void Loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      // A cancelled request is dropped even while the engine is paused.
      changed_.wait(lock,
                    [this] { return stop_ || (!live_.empty() && !paused_) || HasCancelled(); });
      if (stop_) return;
      std::vector<std::pair<EventSink, Event>> events;
      for (auto it = live_.begin(); it != live_.end();) {
        Event event = Step(&it->second);
        const bool ended = event.finish != Finish::kNone;
        if (ended || !event.tokens.empty()) events.emplace_back(it->second.sink, std::move(event));
        it = ended ? live_.erase(it) : std::next(it);
      }
      ++steps_;
      lock.unlock();
      for (auto& [sink, event] : events) sink(event);
      if (step_time.count() > 0) std::this_thread::sleep_for(step_time);
      lock.lock();
    }
  }

  bool HasCancelled() const {
    for (const auto& [id, live] : live_) {
      if (live.cancelled) return true;
    }
    return false;
  }

  Event Step(Live* live) {
    Event event;
    event.id = live->request.id;
    if (live->cancelled) {
      event.finish = Finish::kCancelled;
      return event;
    }
    if (paused_) return event;
    const auto [after, error] = fail(live->request);
    if (after == live->given) {
      event.finish = Finish::kError;
      event.error = error;
      return event;
    }
    event.cached_tokens = 2;
    for (int i = 0; i < tokens_a_step && event.finish == Finish::kNone; ++i) {
      Token token;
      token.id = live->tokens[static_cast<size_t>(live->given) % live->tokens.size()];
      token.logprob = -0.5f;
      for (int k = 0; k < live->request.sampling.top_logprobs; ++k) {
        token.top.push_back({k == 0 ? token.id : 3 + k, -0.5f - static_cast<float>(k)});
      }
      ++live->given;
      ++generated_;
      event.tokens.push_back(std::move(token));
      const auto& stops = live->request.stop_token_ids;
      const int32_t id = event.tokens.back().id;
      const bool is_stop = std::find(stops.begin(), stops.end(), id) != stops.end();
      if (is_stop && !live->request.ignore_eos) {
        event.finish = Finish::kStop;
      } else if (live->given >= live->request.max_tokens) {
        event.finish = Finish::kLength;
      }
    }
    return event;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Live> live_;
  std::vector<Request> seen_;
  bool stop_ = false, paused_ = false;
  uint64_t steps_ = 0, generated_ = 0;
  std::atomic<int> cancels_{0};
  std::atomic<RequestId> last_id_{0};
  std::thread thread_;  // last: it uses what stands above
};

}  // namespace seacliff::serve::testing
