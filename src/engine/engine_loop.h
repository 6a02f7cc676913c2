// The step loop: the engine's one thread, which alone runs the model. Callers reach it through a
// mailbox; it answers through the requests' sinks. It loads nothing (load.cc does) and knows the
// model only by its interface, so tests run it over a fake one.
//
// A step: take the mail, plan, fill the batch arrays, run the model, sample, commit. Rows that
// resumed sequences start from are copied before the model runs, those that others will start from
// after the commit. What no step waits for is done while the model runs, if it runs by itself on a
// device, else before: the events of the step before are sent, requests that came in are queued.
// Then the rows' sampling is prepared: rules of requests are told the tokens since they were asked
// last, and say which may be next.
// A step that fails ends its own sequences with Finish::kError; the engine goes on.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "engine/step_arrays.h"
#include "engine/step_pacer.h"
#include "engine/token_counts.h"
#include "engine/token_masks.h"
#include "engine/validate.h"
#include "kernels/sample/op.h"
#include "model/model.h"
#include "sched/scheduler.h"
#include "seacliff/engine.h"

namespace seacliff {

struct EngineLoopOptions {
  int32_t max_model_len = 0;
  int32_t max_num_seqs = 16;
  int32_t max_num_batched_tokens = 512;
  int32_t max_waiting = 1024;
  int32_t unpaced_tokens = 0;                  // sched/scheduler.h
  CacheSize cache;                             // of which the model holds the memory
  uint64_t seed = 0;                           // of requests that bring none
  std::function<void(const Status&)> on_lost;  // as in EngineOptions; may be empty
};

class EngineLoop final : public Engine {
 public:
  // `masks`: for options.max_num_seqs rows, where the model's logits are.
  EngineLoop(std::unique_ptr<Model> model, TokenMasks masks, const EngineLoopOptions& options);
  // Stops after the step under way; live requests get Finish::kCancelled.
  ~EngineLoop() override;

  RequestId NextId() override;
  Status Submit(Request request, EventSink sink) override;
  void Cancel(RequestId id) override;
  int32_t max_model_len() const override { return options_.max_model_len; }
  int32_t vocab_size() const override { return vocab_size_; }
  EngineStats stats() const override;
  std::string Describe() const override;

 private:
  using Clock = std::chrono::steady_clock;
  // A sequence's part of the step under way, for Describe.
  struct PlannedPart {
    RequestId id = 0;
    int64_t first_position = 0, tokens = 0;
  };
  // What the loop keeps of a request beside its sequence.
  struct Live {
    EventSink sink;
    SamplingParams sampling;
    int32_t prompt_logprobs = -1;
    uint64_t seed = 0;
    std::vector<int32_t> stop_ids;
    bool has_counts = false;
    TokenCounts counts;  // only if a penalty reads them
    std::unique_ptr<TokenRules> rules;
    size_t told = 0;  // generated tokens that the rules know
  };
  struct Arrival {
    Sequence sequence;
    std::unique_ptr<Live> live;
  };
  // A row of logits on its way to a token.
  struct Row {
    Live* live = nullptr;
    Token token;
    std::pair<int32_t, float> given;  // of a row that tells of a prompt's token: a bias to it
    SampleScratch scratch;
    bool ended = false;  // by its rules, which want no token
    Status error;        // of its rules
  };

  void Run();
  // Waits until there is mail or work; false when it is time to stop.
  bool TakeMail();
  void TakeArrivals();
  void QueueTaken();
  void Step();
  // What no step waits for.
  void WorkAside(const StepPlan& plan);
  // Now and then, with nothing to do: that what is free, cached and in use is all there is.
  void CheckBooks();
  Status FillRows(const StepPlan& plan);
  Status SampleRows(const StepPlan& plan);
  // Row `index` of the step's logits, for a request: to be filled in.
  SampleRow& NewRow(size_t index, Live* live);
  // It says how likely `id` is, the token of the prompt that follows.
  void FillPromptRow(size_t index, Live* live, int32_t id);
  // The next token is sampled from it, after `generated` others.
  void FillRow(size_t index, Live* live, int64_t generated);
  // What the rules of its request say of row `index`, which is filled.
  void AskRules(size_t index, const Sequence& sequence);
  // Sends what came of the last step, if that has not been done; `error` is why it failed, for
  // those that have no error of their own.
  void Deliver(const Status& error = OkStatus());
  void Publish(std::span<const StepOutcome> outcomes);
  void PublishPlan(const StepPlan& plan);
  void SetActivity(const char* activity) { activity_.store(activity, std::memory_order_relaxed); }
  // Sends event_ to its request's sink; forgets the request if the event ends it.
  void Send();
  void End(RequestId id, Finish finish, const Status& error);
  void EndAll(Finish finish, const Status& error);
  // The device is gone.
  void Lose(const Status& error);

  const EngineLoopOptions options_;
  const int32_t vocab_size_;
  std::atomic<RequestId> last_id_{0};

  // Shared with callers, under mutex_.
  mutable std::mutex mutex_;
  std::condition_variable mail_;
  std::vector<Arrival> arrivals_;
  std::vector<RequestId> cancels_;
  std::unordered_set<RequestId> ids_;  // of all live requests, queued ones included
  EngineStats stats_;                  // waiting: those that are not in arrivals_ any more
  uint64_t submitted_ = 0;
  bool stop_ = false;
  Status lost_;                                    // why the device is gone
  std::vector<PlannedPart> published_;             // the step under way
  std::atomic<const char*> activity_{"starting"};  // of the engine's thread

  // The engine thread's own.
  std::unique_ptr<Model> model_;
  TokenMasks masks_;  // behind the model, whose device they are on
  Scheduler scheduler_;
  StepArrays arrays_;
  StepPacer pacer_;
  Clock::time_point checked_books_;
  std::span<const StepOutcome> undelivered_;  // of the last step
  Clock::time_point sampled_at_;              // the last step's end
  bool follows_ = false;                      // the next step follows without a pause
  double host_seconds_ = 0, rules_seconds_ = 0;
  double decode_seconds_ = 0;      // of the last step if it carried decodes alone, else 0
  std::bitset<1024> known_sizes_;  // of steps that have run; SizeOf is the index
  std::unordered_map<RequestId, std::unique_ptr<Live>> live_;
  std::vector<Row> rows_;               // [max_num_seqs]; a step uses the first of them
  std::vector<SampleRow> sample_rows_;  // [max_num_seqs] what the op is given of them
  std::vector<int32_t> row_ids_;        // [max_num_seqs] the rows' tokens
  std::vector<int64_t> row_begin_;      // of each sequence of the step, and the end
  std::vector<SampledTokens> sampled_;  // one a sequence of the step
  std::vector<Arrival> taken_arrivals_;
  std::vector<RequestId> taken_cancels_;
  Event event_;

  std::thread thread_;
};

}  // namespace seacliff
