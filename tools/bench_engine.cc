// Requests to the engine, events back with the time at which the engine gave them: on a CPU its
// threads may leave this one little time.
#include "tools/bench_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <unordered_map>

#include "tools/cmd_common.h"
#include "tools/load_sweep.h"

namespace seacliff {
namespace {

using Clock = LoadRun::Clock;

// Events from the engine's thread.
class Inbox {
 public:
  struct Item {
    Event event;
    Clock::time_point time;
  };

  void Put(const Event& event) {
    const Clock::time_point now = Clock::now();
    // Told under the lock, so that the inbox may go once the last event has been taken.
    const std::lock_guard lock(mutex_);
    items_.push_back({event, now});
    filled_.notify_one();
  }
  // What has come, once something has, or nothing at `until`.
  void Take(Clock::time_point until, std::vector<Item>& items) {
    items.clear();
    std::unique_lock lock(mutex_);
    filled_.wait_until(lock, until, [this] { return !items_.empty(); });
    items_.swap(items);
  }

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::vector<Item> items_;
};

class EngineTarget : public LoadTarget {
 public:
  EngineTarget(LoadedModel model, std::string name, std::string machine)
      : model_(std::move(model)), name_(std::move(name)), machine_(std::move(machine)) {}

  int64_t vocab_size() const override { return model_.engine->vocab_size(); }

  Status Send(LoadRun& run, LiveLine& live) override {
    Inbox inbox;
    std::vector<Inbox::Item> items;
    while (!run.done()) {  // also after errors, so that no event comes when the inbox is gone
      while (const auto request = run.Next(Clock::now())) Submit(run, *request, inbox);
      const Clock::time_point now = Clock::now();
      live.Show(run, now);
      inbox.Take(std::min(run.next_due(), now + LiveLine::kEvery), items);
      for (const Inbox::Item& item : items) Take(run, item.event, item.time);
    }
    return OkStatus();
  }

  StepHistogram steps() override { return HistogramOf(model_.engine->stats().decode_steps); }

  void WriteFields(serve::JsonWriter& json) const override {
    json.Field("model", name_).Field("machine", machine_).Field("version", SEACLIFF_VERSION);
  }

 private:
  struct Flight {
    size_t request = 0;
    int64_t tokens = 0;
  };

  void Submit(LoadRun& run, size_t index, Inbox& inbox) {
    Request request;
    request.id = model_.engine->NextId();
    request.prompt = run.Prompt(index);
    request.max_tokens = static_cast<int32_t>(run.options().output_len);
    request.ignore_eos = true;
    request.sampling = model_.sampling;
    flights_[request.id] = {index, 0};
    const RequestId id = request.id;
    const Status status = model_.engine->Submit(std::move(request),
                                                [&inbox](const Event& event) { inbox.Put(event); });
    if (status.ok()) return;
    flights_.erase(id);
    run.Fail(index, status.message(), status.message(), Clock::now());
  }

  void Take(LoadRun& run, const Event& event, Clock::time_point now) {
    Flight& flight = flights_.at(event.id);
    flight.tokens += static_cast<int64_t>(event.tokens.size());
    if (!event.tokens.empty()) run.Chunk(flight.request, now);
    if (event.finish == Finish::kNone) return;
    if (event.finish == Finish::kError) {
      run.Fail(flight.request, event.error.message(), event.error.message(), now);
    } else {
      run.End(flight.request, {run.options().input_len, flight.tokens, event.cached_tokens}, now);
    }
    flights_.erase(event.id);
  }

  LoadedModel model_;
  std::string name_, machine_;
  std::unordered_map<RequestId, Flight> flights_;
};

}  // namespace

Status BenchEngine(const Settings& settings, const std::string& command) {
  if (settings.model.empty()) {
    return InvalidArgument("--max-concurrency: runs the engine, which needs --model");
  }
  Settings s = settings;
  s.dir = s.model;
  s.chat_profile = "auto";
  s.generation_config = "none";
  s.temperature = 1;
  SC_ASSIGN_OR_RETURN(const std::vector<int64_t> concurrencies, ConcurrenciesOf(s));
  for (const int64_t concurrency : concurrencies) {
    const int64_t all = std::max<int64_t>(s.num_prompts, 1);
    s.max_num_seqs = std::max(s.max_num_seqs, concurrency == 0 ? all : concurrency);
  }
  s.max_waiting = std::max<int64_t>(s.num_prompts, 1024);
  if (s.max_model_len == 0) s.max_model_len = s.input_len + s.output_len;
  if (s.max_model_len < s.input_len + s.output_len) {
    return InvalidArgument(
        fmt::format("--max-model-len: {} is less than --input-len and --output-len together, {}",
                    s.max_model_len, s.input_len + s.output_len));
  }
  SC_ASSIGN_OR_RETURN(LoadedModel model, LoadModel(s));
  EngineTarget target(std::move(model), s.model, MachineName(s));
  return SweepLoad(s, command, target);
}

}  // namespace seacliff
