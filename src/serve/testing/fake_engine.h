// An engine without a model: each request gets the tokens of a script, one a step, from a thread of
// its own, as the real one would give them; where its rules allow them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
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
  // Tokens that a step gives a request, how long its first one takes, and whether its rules count.
  struct Pace {
    int tokens = 1;
    std::chrono::milliseconds wait{0};
    bool obey = true;
  };
  std::function<Pace(const Request&)> pace = [this](const Request&) { return Pace{tokens_a_step}; };
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
  // All requests that were let in; they stay where they are.
  std::vector<const Request*> seen() const {
    std::lock_guard lock(mutex_);
    std::vector<const Request*> out;
    for (const Request& request : seen_) out.push_back(&request);
    return out;
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
      Request& kept = seen_.emplace_back(std::move(request));
      const Pace how = pace(kept);
      Live live{&kept, std::move(sink), script(kept), how, Clock::now() + how.wait};
      live_.emplace(kept.id, std::move(live));
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
  using Clock = std::chrono::steady_clock;

  struct Live {
    Request* request;
    EventSink sink;
    std::vector<int32_t> tokens;
    Pace pace;
    Clock::time_point begins;
    int given = 0;
    size_t scored = 1;  // of the prompt
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
        if (ended || !event.tokens.empty() || !event.prompt.empty())
          events.emplace_back(it->second.sink, std::move(event));
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
    event.id = live->request->id;
    if (live->cancelled) {
      event.finish = Finish::kCancelled;
      return event;
    }
    if (paused_ || Clock::now() < live->begins) return event;
    const auto [after, error] = fail(*live->request);
    if (after == live->given) {
      event.finish = Finish::kError;
      event.error = error;
      return event;
    }
    event.cached_tokens = 2;
    const std::vector<int32_t>& prompt = live->request->prompt;
    if (live->request->prompt_logprobs >= 0 && live->scored < prompt.size()) {
      const size_t end = live->scored == 1 ? (prompt.size() + 1) / 2 : prompt.size();
      for (; live->scored < end; ++live->scored) {
        event.prompt.push_back({prompt[live->scored], -0.25f, {}});
      }
      if (end < prompt.size()) return event;
    }
    for (int i = 0; i < live->pace.tokens && event.finish == Finish::kNone; ++i) {
      Token token;
      token.id = live->tokens[static_cast<size_t>(live->given) % live->tokens.size()];
      const bool ruled = live->request->rules && live->pace.obey;
      if (ruled) token.id = Allowed(*live->request, token.id);
      token.logprob = -0.5f;
      for (int k = 0; k < live->request->sampling.top_logprobs; ++k) {
        token.top.push_back({k == 0 ? token.id : 3 + k, -0.5f - static_cast<float>(k)});
      }
      ++live->given;
      ++generated_;
      event.tokens.push_back(std::move(token));
      const auto& stops = live->request->stop_token_ids;
      const int32_t id = event.tokens.back().id;
      const bool is_stop = std::find(stops.begin(), stops.end(), id) != stops.end();
      if (is_stop && !live->request->ignore_eos) {
        event.finish = Finish::kStop;
      } else if (live->given >= live->request->max_tokens) {
        event.finish = Finish::kLength;
      } else if (ruled) {
        live->request->rules->Accept(id);
        if (live->request->rules->done()) event.finish = Finish::kStop;
        if (!live->request->rules->error().ok()) {
          event.finish = Finish::kError;
          event.error = live->request->rules->error();
        }
      }
    }
    return event;
  }

  // What the script wants, or else an end of the reply, or else the first token that may come.
  int32_t Allowed(const Request& request, int32_t wanted) const {
    std::vector<uint32_t> mask(static_cast<size_t>(vocab + 31) / 32);
    if (!request.rules->Mask(mask)) return wanted;
    const auto may = [&](int32_t id) { return (mask[id / 32] >> (id % 32) & 1) != 0; };
    if (may(wanted)) return wanted;
    for (const int32_t id : request.stop_token_ids) {
      if (may(id)) return id;
    }
    for (int32_t id = 0; id < vocab; ++id) {
      if (may(id)) return id;
    }
    return wanted;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Live> live_;
  std::deque<Request> seen_;
  bool stop_ = false, paused_ = false;
  uint64_t steps_ = 0, generated_ = 0;
  std::atomic<int> cancels_{0};
  std::atomic<RequestId> last_id_{0};
  std::thread thread_;  // last: it uses what stands above
};

}  // namespace seacliff::serve::testing
