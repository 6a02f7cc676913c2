// Random traffic through the scheduler, with every promise checked at every step: no page leaked or
// shared, no token computed twice or skipped, steps within their budgets, everyone finishes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "sched/scheduler.h"

namespace seacliff {
namespace {

constexpr int32_t kStopId = 0;

struct Followed {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 0;
  int64_t next_position = 0;
  std::vector<int32_t> output;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    options_.max_num_seqs = Pick(1, 12);
    options_.max_num_batched_tokens = Pick(options_.max_num_seqs, Pick(0, 1) == 0 ? 24 : 700);
    options_.max_waiting = Pick(1, 30);
    longest_ = Pick(2, 1500);
    const CacheLimits limits = {.max_num_seqs = options_.max_num_seqs,
                                .max_num_batched_tokens = options_.max_num_batched_tokens,
                                .max_model_len = longest_,
                                .max_positions = longest_};
    options_.cache = SizeCache(limits, {1, 1, 1})->size;
    // Often too few pages for all sequences at once, never too few for one.
    options_.cache.compressed_pages = static_cast<int32_t>(Pick(
        PagesOf(longest_), std::max<int64_t>(PagesOf(longest_), options_.cache.compressed_pages)));
    scheduler_.emplace(options_);
  }

  void Run() {
    for (int step = 0; step < 150; ++step) {
      Arrive();
      if (Pick(0, 9) == 0) CancelOne();
      Step();
    }
    int64_t bound = 10;  // every step brings at least one token
    for (const auto& [id, followed] : live_) {
      bound += static_cast<int64_t>(followed.prompt.size()) + followed.max_tokens;
    }
    for (; !live_.empty() && bound > 0; --bound) Step();
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_->running() + scheduler_->waiting(), 0);
    EXPECT_EQ(scheduler_->cache().window_pool().used(), 0);
    EXPECT_EQ(scheduler_->cache().compressed_pool().used(), 0);
    EXPECT_EQ(scheduler_->cache().slots().used(), 0);
  }

 private:
  int64_t Pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  void Arrive() {
    for (int64_t n = Pick(0, 2); n > 0; --n) {
      Followed followed;
      const int64_t prompt =
          Pick(0, 3) == 0 ? Pick(1, longest_ - 1) : Pick(1, std::min<int64_t>(20, longest_ - 1));
      for (int64_t i = 0; i < prompt; ++i) {
        followed.prompt.push_back(static_cast<int32_t>(Pick(0, 999)));
      }
      followed.max_tokens = Pick(1, std::min<int64_t>(60, longest_ - prompt));
      Sequence sequence;
      sequence.id = ++last_id_;
      sequence.tokens = followed.prompt;
      sequence.max_tokens = followed.max_tokens;
      sequence.stop_ids = {kStopId};
      const bool full = scheduler_->waiting() >= options_.max_waiting;
      const Status status = scheduler_->Add(std::move(sequence));
      ASSERT_EQ(status.ok(), !full) << status.message();
      if (status.ok()) live_[last_id_] = std::move(followed);
    }
  }

  void CancelOne() {
    if (live_.empty()) return;
    auto victim = live_.begin();
    std::advance(victim, Pick(0, static_cast<int64_t>(live_.size()) - 1));
    ASSERT_TRUE(scheduler_->Cancel(victim->first));
    ASSERT_FALSE(scheduler_->Cancel(victim->first));
    live_.erase(victim);
    scheduler_->CheckBooks();
  }

  void Step() {
    const StepPlan& plan = scheduler_->Plan();
    ASSERT_EQ(plan.steps.empty(), live_.empty());
    if (plan.steps.empty()) return;
    scheduler_->CheckBooks();
    CheckPlan(plan);

    if (Pick(0, 49) == 0) {
      for (const StepOutcome& outcome : scheduler_->Fail()) {
        ASSERT_EQ(outcome.finish, Finish::kError);
        live_.erase(outcome.id);
      }
      scheduler_->CheckBooks();
      return;
    }
    std::vector<int32_t> tokens(plan.steps.size());
    std::vector<SampledTokens> sampled(plan.steps.size());
    std::vector<int64_t> wanted(plan.steps.size());
    for (size_t i = 0; i < plan.steps.size(); ++i) {
      Followed& followed = live_[plan.steps[i].sequence->id];
      followed.next_position += static_cast<int64_t>(plan.steps[i].ids.size());
      tokens[i] = static_cast<int32_t>(Pick(0, 99));
      wanted[i] = plan.steps[i].logits;
      if (wanted[i] == 0) continue;
      if (Pick(0, 199) == 0)
        sampled[i].failed = true;
      else
        sampled[i].ids = {&tokens[i], 1};
    }
    const std::span<const StepOutcome> outcomes = scheduler_->Commit(sampled);
    ASSERT_EQ(outcomes.size(), sampled.size());
    for (size_t i = 0; i < outcomes.size(); ++i) {
      Followed& followed = live_[outcomes[i].id];
      if (outcomes[i].kept == 1) followed.output.push_back(tokens[i]);
      const int64_t generated = static_cast<int64_t>(followed.output.size());
      Finish expected = Finish::kNone;
      if (sampled[i].failed)
        expected = Finish::kError;
      else if (wanted[i] > 0 && tokens[i] == kStopId)
        expected = Finish::kStop;
      else if (wanted[i] > 0 && generated == followed.max_tokens)
        expected = Finish::kLength;
      ASSERT_EQ(outcomes[i].finish, expected);
      if (expected != Finish::kNone) live_.erase(outcomes[i].id);
    }
    scheduler_->CheckBooks();
  }

  void CheckPlan(const StepPlan& plan) {
    ASSERT_LE(static_cast<int64_t>(plan.steps.size()), options_.max_num_seqs);
    ASSERT_LE(plan.tokens, options_.max_num_batched_tokens);
    int64_t tokens = 0, logits = 0;
    for (const SequenceStep& step : plan.steps) {
      ASSERT_TRUE(live_.contains(step.sequence->id));
      const Followed& followed = live_[step.sequence->id];
      ASSERT_FALSE(step.ids.empty());
      ASSERT_EQ(step.first_position, followed.next_position);  // nothing twice, nothing skipped
      const int64_t prompt = static_cast<int64_t>(followed.prompt.size());
      for (size_t i = 0; i < step.ids.size(); ++i) {
        const int64_t position = step.first_position + static_cast<int64_t>(i);
        const int32_t expected = position < prompt
                                     ? followed.prompt[static_cast<size_t>(position)]
                                     : followed.output[static_cast<size_t>(position - prompt)];
        ASSERT_EQ(step.ids[i], expected);
      }
      const int64_t end = step.first_position + static_cast<int64_t>(step.ids.size());
      const int64_t known = prompt + static_cast<int64_t>(followed.output.size());
      ASSERT_EQ(step.logits, end == known ? 1 : 0);
      for (int64_t p = 0; p < end; ++p) {
        const size_t page = static_cast<size_t>(p / kPageTokens);
        ASSERT_GE(step.compressed_pages()[page], 0);
        if (p > step.first_position - options_.window) {
          ASSERT_GE(step.window_pages()[page], 0);
        }
      }
      tokens += static_cast<int64_t>(step.ids.size());
      logits += step.logits;
    }
    ASSERT_EQ(tokens, plan.tokens);
    ASSERT_EQ(logits, plan.logits);
    CheckNobodyStalls(plan);
  }

  // Whoever is decoding is in the step, and the oldest unfinished prompt moves.
  void CheckNobodyStalls(const StepPlan& plan) {
    std::vector<uint64_t> ids;
    for (const SequenceStep& step : plan.steps) ids.push_back(step.sequence->id);
    const auto planned = [&](uint64_t id) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    bool oldest_prompt = true;
    int64_t running = scheduler_->running();
    for (const auto& [id, followed] : live_) {  // in order of arrival: the running ones come first
      if (running-- == 0) break;
      if (!followed.output.empty()) {
        ASSERT_TRUE(planned(id));
      } else if (oldest_prompt) {
        ASSERT_TRUE(planned(id));
        oldest_prompt = false;
      }
    }
  }

  std::mt19937_64 random_;
  SchedulerOptions options_;
  int64_t longest_ = 0;
  std::optional<Scheduler> scheduler_;
  uint64_t last_id_ = 0;
  std::map<uint64_t, Followed> live_;
};

TEST(SimulationTest, EveryPromiseHoldsUnderRandomTraffic) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Simulation(seed).Run();
    if (testing::Test::HasFatalFailure()) return;
  }
}

// A long prompt among an endless stream of short ones still gets half of every step.
TEST(SimulationTest, NeitherLongNorShortPromptsStarve) {
  SchedulerOptions options;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.cache = {100, 1000, 8};
  Scheduler scheduler(options);
  const auto add = [&](uint64_t id, size_t prompt) {
    Sequence sequence;
    sequence.id = id;
    sequence.tokens.assign(prompt, 1);
    sequence.max_tokens = 1;
    ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  };
  add(1, 3200);
  std::map<uint64_t, int> arrived;
  int step = 0, long_done = 0, worst_short = 0;
  uint64_t next = 2;
  const int32_t token = 3;
  for (; long_done == 0 && step < 1000; ++step) {
    arrived[next] = step;
    add(next++, 24);
    const StepPlan& plan = scheduler.Plan();
    std::vector<SampledTokens> sampled(plan.steps.size());
    for (size_t i = 0; i < sampled.size(); ++i) {
      if (plan.steps[i].logits > 0) sampled[i].ids = {&token, 1};
    }
    for (const StepOutcome& outcome : scheduler.Commit(sampled)) {
      if (outcome.finish == Finish::kNone) continue;
      if (outcome.id == 1)
        long_done = step + 1;
      else
        worst_short = std::max(worst_short, step - arrived[outcome.id]);
    }
  }
  EXPECT_LE(long_done, 100);
  EXPECT_EQ(worst_short, 0);
}

}  // namespace
}  // namespace seacliff
