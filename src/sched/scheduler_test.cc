// The scheduler's rules one by one; simulation_test.cc tries them all at random.
#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <vector>

namespace seacliff {
namespace {

Sequence MakeSequence(uint64_t id, int64_t prompt, int64_t max_tokens,
                      std::vector<int32_t> stop_ids = {}) {
  Sequence sequence;
  sequence.id = id;
  sequence.tokens.resize(static_cast<size_t>(prompt));
  std::iota(sequence.tokens.begin(), sequence.tokens.end(), 1000);
  sequence.max_tokens = max_tokens;
  sequence.stop_ids = std::move(stop_ids);
  return sequence;
}

SchedulerOptions Options(int64_t seqs, int64_t step_tokens, int32_t compressed_pages = 1000) {
  SchedulerOptions options;
  options.max_num_seqs = seqs;
  options.max_num_batched_tokens = step_tokens;
  options.cache = {static_cast<int32_t>(3 * seqs + PagesOf(step_tokens)), compressed_pages,
                   static_cast<int32_t>(seqs)};
  return options;
}

// Tokens that the plan brings each sequence, by id.
std::map<uint64_t, int64_t> Tokens(const StepPlan& plan) {
  std::map<uint64_t, int64_t> tokens;
  for (const SequenceStep& step : plan.steps) {
    tokens[step.sequence->id] = static_cast<int64_t>(step.ids.size());
  }
  return tokens;
}

// Commits with `token` sampled for every row wanted.
std::span<const StepOutcome> CommitAll(Scheduler& scheduler, const StepPlan& plan, int32_t token) {
  std::vector<SampledTokens> sampled(plan.steps.size());
  for (size_t i = 0; i < sampled.size(); ++i) {
    if (plan.steps[i].logits > 0) sampled[i].ids = {&token, 1};
  }
  return scheduler.Commit(sampled);
}

using Division = std::map<uint64_t, int64_t>;

TEST(SchedulerTest, ChunksAPromptThenDecodesToTheEnd) {
  Scheduler scheduler(Options(2, 100));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 250, 3)).ok());
  std::vector<int64_t> firsts, logits, done;
  std::vector<Finish> finishes;
  while (true) {
    const StepPlan& plan = scheduler.Plan();
    if (plan.steps.empty()) break;
    ASSERT_EQ(plan.steps.size(), 1u);
    firsts.push_back(plan.steps[0].first_position);
    logits.push_back(plan.logits);
    const std::span<const StepOutcome> outcomes = CommitAll(scheduler, plan, 5);
    done.push_back(outcomes[0].prompt_done);
    finishes.push_back(outcomes[0].finish);
  }
  // One prompt alone gets both lanes.
  EXPECT_EQ(firsts, (std::vector<int64_t>{0, 100, 200, 250, 251}));
  EXPECT_EQ(logits, (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_EQ(done, (std::vector<int64_t>{100, 100, 50, 0, 0}));
  EXPECT_EQ(finishes.back(), Finish::kLength);
  EXPECT_EQ(scheduler.running(), 0);
  EXPECT_EQ(scheduler.cache().compressed_pool().used(), 0);
}

TEST(SchedulerTest, ShortPromptsPassALongOneAndTheLongOneGetsHalf) {
  Scheduler scheduler(Options(4, 100));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 1000, 8)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 500, 8)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 20, 8)).ok());
  EXPECT_EQ(Tokens(scheduler.Plan()), (Division{{1, 50}, {3, 20}, {2, 30}}));
}

TEST(SchedulerTest, DecodesComeFirst) {
  Scheduler scheduler(Options(4, 8));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 3, 8)).ok());
  CommitAll(scheduler, scheduler.Plan(), 7);
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 100, 8)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 100, 8)).ok());
  const StepPlan& plan = scheduler.Plan();
  EXPECT_EQ(Tokens(plan), (Division{{1, 1}, {2, 4}, {3, 3}}));
  EXPECT_EQ(plan.steps[0].sequence->id, 1u);
  EXPECT_EQ(plan.steps[0].ids[0], 7);
  EXPECT_EQ(plan.steps[0].first_position, 3);
  EXPECT_EQ(plan.tokens, 8);
  EXPECT_EQ(plan.logits, 1);
}

TEST(SchedulerTest, AdmitsInOrderByPagesAndBySlots) {
  Scheduler scheduler(Options(2, 512, /*compressed_pages=*/10));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 128, 4 * 128)).ok());  // 5 pages
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 128, 5 * 128)).ok());  // 6 pages: must wait
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 1, 1)).ok());          // would fit: must not overtake
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.waiting(), 2);
  EXPECT_TRUE(scheduler.Cancel(1));
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_EQ(scheduler.waiting(), 0);
}

TEST(SchedulerTest, RefusesWhatCanNeverFitAndAFullQueue) {
  SchedulerOptions options = Options(2, 512, 10);
  options.max_waiting = 2;
  Scheduler scheduler(options);
  EXPECT_EQ(scheduler.Add(MakeSequence(1, 1280, 1)).code(), Code::kInvalidArgument);
  EXPECT_TRUE(scheduler.Add(MakeSequence(1, 1279, 1)).ok());
  EXPECT_TRUE(scheduler.Add(MakeSequence(2, 1, 1)).ok());
  EXPECT_EQ(scheduler.Add(MakeSequence(3, 1, 1)).code(), Code::kExhausted);
}

TEST(SchedulerTest, StopIdsEndASequenceAndAreKept) {
  Scheduler scheduler(Options(2, 512));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 10, 100, {42, 43})).ok());
  EXPECT_EQ(CommitAll(scheduler, scheduler.Plan(), 41)[0].finish, Finish::kNone);
  const std::span<const StepOutcome> outcomes = CommitAll(scheduler, scheduler.Plan(), 43);
  EXPECT_EQ(outcomes[0].finish, Finish::kStop);
  EXPECT_EQ(outcomes[0].kept, 1);
  EXPECT_EQ(scheduler.running(), 0);
}

TEST(SchedulerTest, CancelFreesAtOnce) {
  Scheduler scheduler(Options(1, 512));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 600, 100)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 600, 100)).ok());
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_GT(scheduler.cache().compressed_pool().used(), 0);
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_EQ(scheduler.cache().compressed_pool().used(), 0);
  EXPECT_EQ(scheduler.cache().window_pool().used(), 0);
  EXPECT_EQ(scheduler.cache().slots().used(), 0);
  EXPECT_TRUE(scheduler.Cancel(2));
  EXPECT_FALSE(scheduler.Cancel(2));
  EXPECT_TRUE(scheduler.Plan().steps.empty());
}

TEST(SchedulerTest, AFailedStepEndsItsSequencesOnly) {
  Scheduler scheduler(Options(2, 8));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 4, 9)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 4, 9)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 4, 9)).ok());
  ASSERT_EQ(scheduler.Plan().steps.size(), 2u);
  const std::span<const StepOutcome> outcomes = scheduler.Fail();
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].finish, Finish::kError);
  EXPECT_EQ(outcomes[1].finish, Finish::kError);
  scheduler.CheckBooks();
  const StepPlan& plan = scheduler.Plan();
  ASSERT_EQ(plan.steps.size(), 1u);
  EXPECT_EQ(plan.steps[0].sequence->id, 3u);
  // And one sequence can fail alone.
  const SampledTokens failed[] = {{{}, true}};
  EXPECT_EQ(scheduler.Commit(failed)[0].finish, Finish::kError);
  EXPECT_EQ(scheduler.running(), 0);
}

TEST(SchedulerDeathTest, PlansAndCommitsAlternate) {
  Scheduler scheduler(Options(2, 8));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 4, 9)).ok());
  (void)scheduler.Plan();
  EXPECT_DEATH((void)scheduler.Plan(), "planned_");
  EXPECT_DEATH((void)scheduler.Cancel(1), "planned_");
  EXPECT_DEATH((void)scheduler.Commit({}), "sampled");
}

}  // namespace
}  // namespace seacliff
