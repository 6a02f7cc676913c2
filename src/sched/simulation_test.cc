// Random traffic through the scheduler (simulation.h), and conversations as agents have them.
#include "sched/simulation.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace seacliff {
namespace {

struct Traffic {
  const char* name;
  SimulationSetup setup;
};
const Traffic kTraffic[] = {
    {"few pages", {}},
    {"plenty of pages", {.plenty = true, .failures = false}},
    {"plenty of pages, failures", {.plenty = true}},
    {"pages run out at any moment", {.out_of_pages = true}},
    {"priorities", {.priorities = true}},
    {"no prefix cache", {.out_of_pages = true, .caching = false}},
};

constexpr int kShort = 400;
// Runs with plenty of pages are short: they end before these are all taken.
void RunAll(uint64_t seeds, int steps) {
  for (const Traffic& traffic : kTraffic) {
    if (traffic.setup.plenty && steps > kShort) continue;
    uint64_t preemptions = 0, evicted = 0, dropped = 0, hits = 0;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      SCOPED_TRACE(traffic.name + (" " + std::to_string(seed)));
      Simulation simulation(seed, traffic.setup);
      simulation.Run(steps);
      if (testing::Test::HasFailure()) return;
      preemptions += simulation.scheduler().counts().preemptions;
      hits += simulation.scheduler().counts().hit_tokens;
      evicted += simulation.scheduler().cache().evicted_blocks();
      dropped += simulation.scheduler().cache().dropped_snapshots();
    }
    // What is to be tested did happen.
    EXPECT_EQ(preemptions > 0, !traffic.setup.plenty) << traffic.name;
    EXPECT_EQ(evicted > 0, !traffic.setup.plenty && traffic.setup.caching) << traffic.name;
    EXPECT_EQ(dropped > 0, !traffic.setup.plenty && traffic.setup.caching) << traffic.name;
    EXPECT_EQ(hits > 0, traffic.setup.caching) << traffic.name;
  }
}

TEST(SimulationTest, EveryPromiseHoldsUnderRandomTraffic) { RunAll(30, kShort); }
TEST(SlowSimulationTest, EveryPromiseHoldsInManyRuns) { RunAll(400, kShort); }
TEST(SlowSimulationTest, EveryPromiseHoldsInLongRuns) { RunAll(30, 100000); }

// One run, again and again, with no page to be had from its k-th step on for some steps: whoever
// asks for one then, for whatever reason, waits or is preempted, and in the end has its tokens.
TEST(SimulationTest, PagesRunOutAtEachMoment) {
  bool moments_left = true;
  for (int moment = 0; moments_left; ++moment) {
    SCOPED_TRACE(moment);
    SchedulerOptions options;
    options.max_num_seqs = 3;
    options.max_num_batched_tokens = 100;
    options.cache = {20, 14, 3, 6};
    Scheduler scheduler(options);
    SimulatedMemory memory(options.cache, options.window);
    std::map<uint64_t, std::vector<uint64_t>> prefixes;
    for (uint64_t id = 1; id <= 5; ++id) {  // pairs that share a block
      Sequence sequence;
      sequence.id = id;
      for (int32_t i = 0; i < 150 + 50 * static_cast<int32_t>(id); ++i) {
        sequence.tokens.push_back(i < 128 ? static_cast<int32_t>(id / 2) : i);
      }
      sequence.max_tokens = 150;
      prefixes[id] = {0};
      for (const int32_t token : sequence.tokens) {
        prefixes[id].push_back(MixHash(prefixes[id].back(), static_cast<uint64_t>(token)));
      }
      ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
    }
    std::map<uint64_t, int64_t> generated;
    int step = 0;
    for (; scheduler.running() + scheduler.waiting() > 0; ++step) {
      ASSERT_LT(step, 5000);
      scheduler.Withhold(step >= moment && step < moment + 3 ? options.cache.compressed_pages : 0);
      const StepPlan& plan = scheduler.Plan();
      ASSERT_TRUE(scheduler.CheckBooks().ok());
      if (plan.steps.empty()) continue;
      memory.Copy(plan.copies);
      const int32_t token = 7;
      std::vector<SampledTokens> sampled(plan.steps.size());
      for (size_t i = 0; i < plan.steps.size(); ++i) {
        memory.Step(plan.steps[i], prefixes[plan.steps[i].sequence->id]);
        if (plan.steps[i].logits > 0) sampled[i].ids = {&token, 1};
      }
      ASSERT_FALSE(HasFatalFailure());
      for (const StepOutcome& outcome : scheduler.Commit(sampled)) {
        generated[outcome.id] += outcome.kept;
        std::vector<uint64_t>& known = prefixes[outcome.id];
        for (int64_t i = 0; i < outcome.kept; ++i) known.push_back(MixHash(known.back(), 7));
      }
      memory.Copy(scheduler.copies());
      ASSERT_TRUE(scheduler.CheckBooks().ok());
    }
    for (uint64_t id = 1; id <= 5; ++id) ASSERT_EQ(generated[id], 150);
    moments_left = moment < step;
  }
}

// ---- conversations ----

// Conversations that send all that was said so far with each turn, over one scheduler.
class Conversations {
 public:
  explicit Conversations(int32_t pages) {
    SchedulerOptions options;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 2048;
    const CacheLimits limits = {.max_num_seqs = 4,
                                .max_num_batched_tokens = 2048,
                                .max_model_len = 1 << 17,
                                .max_positions = 1 << 17,
                                .kv_cache_memory = pages};
    options.cache = SizeCache(limits, {0, 1, 0, 0})->size;
    scheduler_.emplace(options);
  }

  // Adds `tokens` new ones to the history, asks for `answer` more and puts them into it. Returns
  // the prompt tokens that were computed.
  int64_t Turn(std::vector<int32_t>& history, int64_t tokens, int64_t answer) {
    for (int64_t i = 0; i < tokens; ++i) history.push_back(static_cast<int32_t>(random_() % 1000));
    Sequence sequence;
    sequence.id = ++last_id_;
    sequence.tokens = history;
    sequence.max_tokens = answer;
    EXPECT_TRUE(scheduler_->Add(std::move(sequence)).ok());
    int64_t computed = 0;
    while (scheduler_->running() + scheduler_->waiting() > 0) {
      const StepPlan& plan = scheduler_->Plan();
      const auto token = static_cast<int32_t>(random_() % 1000);
      const SampledTokens sampled[] = {
          {plan.logits > 0 ? std::span(&token, 1) : std::span<const int32_t>(), false}};
      const StepOutcome outcome = scheduler_->Commit(sampled)[0];
      computed += outcome.prompt_done;
      if (outcome.kept > 0) history.push_back(token);
      const Status books = scheduler_->CheckBooks();
      EXPECT_TRUE(books.ok()) << books.message();
    }
    return computed;
  }

  const Scheduler& scheduler() const { return *scheduler_; }

 private:
  std::optional<Scheduler> scheduler_;
  std::mt19937 random_{3};
  uint64_t last_id_ = 0;
};

TEST(ConversationTest, TwoThatAlternateComputeTheirNewTokensAlone) {
  Conversations conversations(/*pages=*/2000);
  std::vector<int32_t> histories[2];
  for (std::vector<int32_t>& history : histories) {
    EXPECT_EQ(conversations.Turn(history, 50'000, 300), 50'000);
  }
  for (int turn = 0; turn < 10; ++turn) {
    for (std::vector<int32_t>& history : histories) {
      // The token that ended the last answer was never computed.
      EXPECT_LE(conversations.Turn(history, 200, 300), 200 + 1 + 127);
    }
  }
  EXPECT_EQ(conversations.scheduler().cache().evicted_blocks(), 0u);
}

// With too little room for both each turn computes the end of its history anew, and says why.
TEST(ConversationTest, TwoThatDoNotFitEvictEachOther) {
  constexpr int64_t kPages = 1100, kLength = 100'000;
  Conversations conversations(kPages);
  std::vector<int32_t> histories[2];
  for (int turn = 0; turn < 3; ++turn) {
    for (std::vector<int32_t>& history : histories) {
      const int64_t computed = conversations.Turn(history, turn == 0 ? kLength : 200, 300);
      if (turn == 0) continue;
      // What does not fit beside the other's history is evicted from the end, so what is before is
      // found up to the last snapshot.
      EXPECT_LE(computed, 2 * kLength + 2000 - kPages * kPageTokens + kSnapshotEvery);
    }
  }
  const auto& missed = conversations.scheduler().counts().missed_tokens;
  EXPECT_GT(missed[static_cast<size_t>(CacheMiss::kEvicted)], 4 * 50'000u);
  EXPECT_LT(missed[static_cast<size_t>(CacheMiss::kCold)], 2 * kLength + 4 * 1000u);
}

TEST(ConversationTest, AnAgentComputesItsSystemPromptOnce) {
  Conversations conversations(/*pages=*/4000);
  std::vector<int32_t> system;
  EXPECT_EQ(conversations.Turn(system, 10'000, 1), 10'000);
  system.pop_back();
  for (int task = 0; task < 3; ++task) {
    std::vector<int32_t> history = system;
    int64_t computed = conversations.Turn(history, 500, 200);
    // Nothing can be started behind the system prompt before it was seen twice; the last boundary
    // of the first prompt lies 16 tokens before its end.
    EXPECT_LE(computed, 500 + 127) << "task " << task;
    for (int turn = 1; turn < 30; ++turn) {
      computed = conversations.Turn(history, 400, 200);
      EXPECT_LE(computed, 400 + 1 + 127) << "task " << task << ", turn " << turn;
    }
  }
}

// A long prompt among an endless stream of short ones still gets half of every step.
TEST(SimulationTest, NeitherLongNorShortPromptsStarve) {
  SchedulerOptions options;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.cache = {100, 1000, 8, 0};
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
