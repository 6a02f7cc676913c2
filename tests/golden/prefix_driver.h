// A model with a scheduler, one request at a time, greedy: for tests of what the prefix cache makes
// of the logits.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/step_arrays.h"
#include "model/model.h"
#include "sched/scheduler.h"

namespace seacliff {

struct PrefixAnswer {
  std::vector<int32_t> ids;
  std::vector<float> logits;         // of every generated token
  int64_t cached = 0, computed = 0;  // prompt tokens
};

class PrefixDriver {
 public:
  // `options`: which model, where and how; what sizes it is set here.
  PrefixDriver(const ModelOptions& options, int64_t max_len) : options_(options) {
    const ModelConfig config = LoadModelConfig(options.dir).value();
    const CacheLimits limits = {.max_num_seqs = 2,
                                .max_num_batched_tokens = kStepTokens,
                                .max_model_len = max_len,
                                .max_positions = config.max_positions,
                                .window = config.window};
    scheduling_.max_num_seqs = limits.max_num_seqs;
    scheduling_.max_num_batched_tokens = kStepTokens;
    scheduling_.window = config.window;
    scheduling_.cache = SizeCache(limits, {1, 1, 1, 1})->size;
    options_.max_tokens = kStepTokens;
    options_.window_pages = scheduling_.cache.window_pages;
    options_.compressed_pages = scheduling_.cache.compressed_pages;
    options_.slots = scheduling_.cache.slots;
    options_.snapshots = scheduling_.cache.snapshots;
    model_ = Model::Load(options_, {}).value();
    arrays_.emplace(kStepTokens, limits.max_num_seqs, max_len);
    Forget();
  }

  // Nothing is cached from here on; what lies in the pages stays there.
  void Forget() { scheduler_.emplace(scheduling_); }

  PrefixAnswer Ask(const std::vector<int32_t>& prompt, int64_t max_tokens) {
    Sequence sequence;
    sequence.id = ++last_id_;
    sequence.tokens = prompt;
    sequence.max_tokens = max_tokens;
    EXPECT_TRUE(scheduler_->Add(std::move(sequence)).ok());
    PrefixAnswer answer;
    std::vector<float> logits;
    while (scheduler_->running() + scheduler_->waiting() > 0) {
      const StepPlan& plan = scheduler_->Plan();
      model_->CopyRows(plan.copies);
      EXPECT_TRUE(model_->Forward(arrays_->Fill(plan), nullptr).ok());
      EXPECT_TRUE(model_->ReadLogits(logits).ok());
      SampledTokens sampled;
      int32_t id = 0;
      if (plan.logits > 0) {
        id = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
        sampled.ids = {&id, 1};
        answer.ids.push_back(id);
        answer.logits.insert(answer.logits.end(), logits.begin(), logits.end());
      }
      const StepOutcome outcome = scheduler_->Commit({&sampled, 1})[0];
      model_->CopyRows(scheduler_->copies());
      answer.cached = outcome.cached;
      answer.computed += outcome.prompt_done;
    }
    return answer;
  }

  const ModelConfig& config() const { return model_->config(); }
  int32_t vocab() const { return static_cast<int32_t>(model_->config().vocab_size); }

 private:
  static constexpr int64_t kStepTokens = 200;

  ModelOptions options_;
  SchedulerOptions scheduling_;
  std::unique_ptr<Model> model_;
  std::optional<StepArrays> arrays_;
  std::optional<Scheduler> scheduler_;
  uint64_t last_id_ = 0;
};

inline std::vector<int32_t> RandomIds(std::mt19937& random, int32_t vocab, size_t count) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  return ids;
}

inline void Append(std::vector<int32_t>& to, const std::vector<int32_t>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

// A prompt of 300 tokens, then the same from the cache: the same 140 logits, bit for bit. Returns
// the prompt and its answer.
inline std::vector<int32_t> ExpectAHit(PrefixDriver& driver, std::mt19937& random) {
  std::vector<int32_t> turn = RandomIds(random, driver.vocab(), 300);
  const PrefixAnswer cold = driver.Ask(turn, 140);
  EXPECT_EQ(cold.cached, 0);
  const PrefixAnswer warm = driver.Ask(turn, 140);
  EXPECT_EQ(warm.cached, 256);
  EXPECT_EQ(warm.logits, cold.logits);
  Append(turn, cold.ids);
  return turn;
}

}  // namespace seacliff
