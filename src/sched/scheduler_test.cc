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

SchedulerOptions Options(int64_t seqs, int64_t step_tokens, int32_t compressed_pages = 1000,
                         int32_t snapshots = 0) {
  SchedulerOptions options;
  options.max_num_seqs = seqs;
  options.max_num_batched_tokens = step_tokens;
  options.cache = {static_cast<int32_t>(3 * seqs + PagesOf(step_tokens)) + snapshots,
                   compressed_pages, static_cast<int32_t>(seqs), snapshots};
  return options;
}

// The same with a prefix cache.
SchedulerOptions Caching(int64_t seqs, int64_t step_tokens, int32_t compressed_pages = 1000) {
  return Options(seqs, step_tokens, compressed_pages, 50);
}

using Division = std::map<uint64_t, int64_t>;

// Tokens that the plan brings each sequence, by id.
Division Tokens(const StepPlan& plan) {
  std::map<uint64_t, int64_t> tokens;
  for (const SequenceStep& step : plan.steps) {
    tokens[step.sequence->id] = static_cast<int64_t>(step.ids.size());
  }
  return tokens;
}

// Commits with `token` sampled for every row wanted behind those of prompts.
std::span<const StepOutcome> CommitAll(Scheduler& scheduler, const StepPlan& plan, int32_t token) {
  std::vector<SampledTokens> sampled(plan.steps.size());
  for (size_t i = 0; i < sampled.size(); ++i) {
    if (plan.steps[i].logits > plan.steps[i].prompt_logits) sampled[i].ids = {&token, 1};
  }
  return scheduler.Commit(sampled);
}

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

TEST(SchedulerTest, APromptThatIsScoredGetsTheRowsThatAreLeft) {
  Scheduler scheduler(Caching(4, 700));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 300, 600)).ok());
  while (scheduler.plan().decodes == 0) CommitAll(scheduler, scheduler.Plan(), 5);
  // All of it is cached, but its logits are not.
  Sequence scored = MakeSequence(2, 200, 1);
  scored.scores = true;
  ASSERT_TRUE(scheduler.Add(std::move(scored)).ok());
  int64_t rows = 0;
  for (int step = 0; rows < 199; ++step) {
    const StepPlan& plan = scheduler.Plan();
    ASSERT_EQ(plan.logits, rows == 198 ? 3 : 4) << step;  // the decode's and the prompt's own
    ASSERT_EQ(plan.steps[1].first_position, rows);
    rows += plan.steps[1].prompt_logits;
    CommitAll(scheduler, plan, 5);
  }
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.counts().hit_tokens, 0u);
}

TEST(SchedulerTest, ASequenceThatMayNotGoOnEndsWithWhatItComputed) {
  Scheduler scheduler(Caching(2, 200));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 127, 8)).ok());
  CommitAll(scheduler, scheduler.Plan(), 5);  // the 128th token
  const StepPlan& plan = scheduler.Plan();
  ASSERT_EQ(plan.logits, 1);
  const SampledTokens none{{}, false, true};
  const std::span<const StepOutcome> outcomes = scheduler.Commit({&none, 1});
  EXPECT_EQ(outcomes[0].finish, Finish::kStop);
  EXPECT_EQ(outcomes[0].kept, 0);
  EXPECT_EQ(scheduler.running(), 0);
  EXPECT_EQ(scheduler.cache().index().idle().size(), 1);  // all 128 are cached
  EXPECT_TRUE(scheduler.CheckBooks().ok());
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
  Scheduler scheduler(Options(3, 512, /*compressed_pages=*/10));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 7 * 128, 128)).ok());  // 7 pages
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 3 * 128, 128)).ok());  // 3 and one to grow: must wait
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 1, 1)).ok());          // would fit: must not overtake
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.waiting(), 2);
  EXPECT_TRUE(scheduler.Cancel(1));
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_EQ(scheduler.waiting(), 0);
}

TEST(SchedulerTest, PriorityComesBeforeArrival) {
  Scheduler scheduler(Options(1, 512));
  for (uint64_t id = 1; id <= 4; ++id) {
    Sequence sequence = MakeSequence(id, 4, 1);
    sequence.priority = id == 3 ? -1 : id == 1 ? 5 : 0;
    ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  }
  std::vector<uint64_t> order;
  while (scheduler.waiting() > 0) order.push_back(CommitAll(scheduler, scheduler.Plan(), 7)[0].id);
  EXPECT_EQ(order, (std::vector<uint64_t>{3, 2, 4, 1}));
}

TEST(SchedulerTest, ThePromptLimitHoldsForStepsWithDecodes) {
  Scheduler scheduler(Options(4, 100));
  scheduler.set_prompt_limit(16);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 90, 8)).ok());
  EXPECT_EQ(Tokens(scheduler.Plan()), (Division{{1, 90}}));  // nobody waits for a token
  CommitAll(scheduler, scheduler.plan(), 7);
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 90, 8)).ok());
  EXPECT_EQ(Tokens(scheduler.Plan()), (Division{{1, 1}, {2, 16}}));
  EXPECT_EQ(scheduler.plan().decodes, 1);
}

// ---- pages run out ----

// Three that fit one by one and not together: the youngest makes room, comes back when there is
// some, and starts where it was.
TEST(SchedulerTest, TheFirstTokensOfAPromptAreNotPaced) {
  SchedulerOptions options = Options(4, 100);
  options.unpaced_tokens = 150;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 3, 80)).ok());
  CommitAll(scheduler, scheduler.Plan(), 7);
  scheduler.set_prompt_limit(20);
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 500, 8)).ok());
  const auto step = [&] {
    const StepPlan& plan = scheduler.Plan();
    const Division tokens = Tokens(plan);
    CommitAll(scheduler, plan, 7);
    return tokens;
  };
  EXPECT_EQ(step(), (Division{{1, 1}, {2, 99}}));
  EXPECT_EQ(step(), (Division{{1, 1}, {2, 99}}));
  EXPECT_EQ(step(), (Division{{1, 1}, {2, 20}}));
  EXPECT_TRUE(scheduler.plan().paced);
  // The long one goes along with a short one.
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 40, 8)).ok());
  EXPECT_EQ(step(), (Division{{1, 1}, {2, 59}, {3, 40}}));
  EXPECT_FALSE(scheduler.plan().paced);
  EXPECT_EQ(step(), (Division{{1, 1}, {2, 20}, {3, 1}}));
}

TEST(SchedulerTest, TheYoungestIsPreemptedAndResumed) {
  Scheduler scheduler(Caching(3, 512, /*compressed_pages=*/9));
  for (uint64_t id = 1; id <= 3; ++id) {
    Sequence sequence = MakeSequence(id, 100, 500);
    sequence.tokens[0] = static_cast<int32_t>(id);
    ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  }
  std::map<uint64_t, int64_t> kept;
  std::vector<uint64_t> finished;
  for (int step = 0; step < 3000 && scheduler.running() + scheduler.waiting() > 0; ++step) {
    const StepPlan& plan = scheduler.Plan();
    ASSERT_FALSE(plan.steps.empty());
    EXPECT_EQ(plan.steps[0].sequence->id, finished.size() + 1);  // the oldest always goes on
    for (const StepOutcome& outcome : CommitAll(scheduler, plan, 7)) {
      kept[outcome.id] += outcome.kept;
      if (outcome.finish != Finish::kNone) finished.push_back(outcome.id);
    }
    ASSERT_TRUE(scheduler.CheckBooks().ok());
  }
  EXPECT_EQ(finished, (std::vector<uint64_t>{1, 2, 3}));
  for (const auto& [id, count] : kept) EXPECT_EQ(count, 500);
  EXPECT_GT(scheduler.counts().preemptions, 0u);
  // Each time it lost less than a block and what was evicted since.
  EXPECT_LE(scheduler.counts().recomputed_tokens,
            scheduler.counts().preemptions * kPageTokens +
                scheduler.cache().evicted_blocks() * kPageTokens);
}

// A younger sequence that decodes, and so comes first in every step, takes the pages that an older
// prompt was let in with: it must give them back at once.
TEST(SchedulerTest, AnOlderPromptGetsItsPagesBack) {
  Scheduler scheduler(Caching(2, 512, /*compressed_pages=*/12));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 1100, 1)).ok());
  scheduler.set_prompt_limit(1);
  Sequence young = MakeSequence(2, 100, 1000);
  young.tokens[0] = 2;
  // It computes its prompt while the older one is held back, then both go on token by token.
  ASSERT_TRUE(scheduler.Add(std::move(young)).ok());
  int64_t waited = 0, longest_wait = 0;
  for (int step = 0; step < 5000 && scheduler.running() + scheduler.waiting() > 0; ++step) {
    const Division tokens = Tokens(scheduler.Plan());
    const bool first_runs = scheduler.plan().steps[0].sequence->id == 1 || tokens.contains(1);
    waited = first_runs || scheduler.running() + scheduler.waiting() == 1 ? 0 : waited + 1;
    longest_wait = std::max(longest_wait, waited);
    CommitAll(scheduler, scheduler.plan(), 7);
  }
  EXPECT_EQ(scheduler.running(), 0);
  EXPECT_GT(scheduler.counts().preemptions, 0u);
  EXPECT_LE(longest_wait, 1);
}

// ---- prefixes ----

// Runs until `id` has ended; returns how many of its tokens were computed.
int64_t RunToEnd(Scheduler& scheduler, uint64_t id) {
  int64_t tokens = 0;
  for (int step = 0; step < 100000; ++step) {
    const StepPlan& plan = scheduler.Plan();
    if (const auto found = Tokens(plan); found.contains(id)) tokens += found.at(id);
    for (const StepOutcome& outcome : CommitAll(scheduler, plan, 7)) {
      if (outcome.id == id && outcome.finish != Finish::kNone) return tokens;
    }
    EXPECT_TRUE(scheduler.CheckBooks().ok());
  }
  ADD_FAILURE() << "no end";
  return tokens;
}

// Runs until nothing is left; returns where the chunks of its only sequence began.
std::vector<int64_t> ChunkStarts(Scheduler& scheduler) {
  std::vector<int64_t> starts;
  while (scheduler.running() + scheduler.waiting() > 0) {
    starts.push_back(scheduler.Plan().steps[0].first_position);
    CommitAll(scheduler, scheduler.plan(), 7);
  }
  return starts;
}

TEST(SchedulerTest, ChunksEndWhereSnapshotsAreWanted) {
  SchedulerOptions options = Caching(2, 700);
  options.snapshot_every = 512;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 1300, 1)).ok());
  EXPECT_EQ(ChunkStarts(scheduler), (std::vector<int64_t>{0, 512, 1024}));
  EXPECT_EQ(scheduler.cache().snapshots().used(), 3);
}

TEST(SchedulerTest, ASnapshotIsTakenALittleEarlyRatherThanAfterAShortChunk) {
  SchedulerOptions options = Caching(2, 1000);
  options.snapshot_every = 2048;
  Scheduler scheduler(options);
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 4000, 1)).ok());
  EXPECT_EQ(ChunkStarts(scheduler), (std::vector<int64_t>{0, 1000, 2000, 3000}));
  // At 1920, and at 3968, the last block boundary.
  EXPECT_EQ(scheduler.cache().snapshots().used(), 2);
}

TEST(SchedulerTest, APromptInOneStepLeavesASnapshotAtItsLastBoundary) {
  for (const int64_t length : {129, 255, 256, 257, 300}) {
    Scheduler scheduler(Caching(2, 400));
    ASSERT_TRUE(scheduler.Add(MakeSequence(1, length, 1)).ok());
    EXPECT_EQ(ChunkStarts(scheduler), std::vector<int64_t>{0}) << length;
    // The same prompt finds all but its last tokens, a longer one all whole blocks.
    ASSERT_TRUE(scheduler.Add(MakeSequence(2, length, 1)).ok());
    EXPECT_EQ(ChunkStarts(scheduler)[0], (length - 1) / 128 * 128) << length;
    ASSERT_TRUE(scheduler.Add(MakeSequence(3, length + 1, 1)).ok());
    EXPECT_EQ(ChunkStarts(scheduler)[0], length / 128 * 128) << length;
  }
}

TEST(SchedulerTest, ATurnComputesItsNewTokensAndOneBlockMore) {
  Scheduler scheduler(Caching(2, 512));
  Sequence sequence = MakeSequence(1, 1000, 300);
  std::vector<int32_t> history = sequence.tokens;
  ASSERT_TRUE(scheduler.Add(std::move(sequence)).ok());
  RunToEnd(scheduler, 1);
  for (uint64_t turn = 2; turn <= 10; ++turn) {
    history.insert(history.end(), 300, 7);  // the answer
    const int64_t before = static_cast<int64_t>(history.size());
    history.insert(history.end(), 50, static_cast<int32_t>(turn));
    Sequence next = MakeSequence(turn, 1, 300);
    next.tokens = history;
    ASSERT_TRUE(scheduler.Add(std::move(next)).ok());
    // All but the last of its generated tokens are computed too.
    const int64_t computed = RunToEnd(scheduler, turn) - 299;
    EXPECT_LE(computed, 50 + 127) << turn;
    EXPECT_GE(static_cast<int64_t>(history.size()) - computed, before - 127);
  }
}

TEST(SchedulerTest, ABranchSeenTwiceIsKept) {
  Scheduler scheduler(Caching(2, 512));
  const auto ask = [&](uint64_t id) {
    Sequence sequence = MakeSequence(id, 1000, 1);  // 640 in common
    for (size_t i = 640; i < 1000; ++i) sequence.tokens[i] = static_cast<int32_t>(id);
    EXPECT_TRUE(scheduler.Add(std::move(sequence)).ok());
    return RunToEnd(scheduler, id);
  };
  EXPECT_EQ(ask(1), 1000);
  EXPECT_EQ(ask(2), 1000);  // known, but nothing to start from: now it is made
  EXPECT_EQ(ask(3), 360);
  EXPECT_EQ(ask(4), 360);
  const auto& missed = scheduler.counts().missed_tokens;
  EXPECT_EQ(missed[static_cast<size_t>(CacheMiss::kSnapshot)], 640u);
  EXPECT_EQ(scheduler.counts().hit_tokens, 1280u);
  EXPECT_EQ(scheduler.counts().queried_tokens, 4000u);
}

TEST(SchedulerTest, EqualPromptsAreComputedOnceAndOthersPass) {
  Scheduler scheduler(Caching(8, 256));
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(scheduler.Add(MakeSequence(id, 1000, 5)).ok());
  }
  Sequence other = MakeSequence(5, 40, 1);
  other.tokens[0] = 1;
  ASSERT_TRUE(scheduler.Add(std::move(other)).ok());
  // Shares five blocks and leaves.
  Sequence cousin = MakeSequence(6, 1000, 1);
  for (size_t i = 640; i < 1000; ++i) cousin.tokens[i] = 3;
  ASSERT_TRUE(scheduler.Add(std::move(cousin)).ok());
  EXPECT_TRUE(Tokens(scheduler.Plan()).contains(5));
  EXPECT_EQ(scheduler.running(), 2);
  std::map<uint64_t, int64_t> computed = Tokens(scheduler.plan());
  CommitAll(scheduler, scheduler.plan(), 7);
  while (scheduler.running() + scheduler.waiting() > 0) {
    for (const auto& [id, tokens] : Tokens(scheduler.Plan())) computed[id] += tokens;
    CommitAll(scheduler, scheduler.plan(), 7);
    ASSERT_TRUE(scheduler.CheckBooks().ok());
  }
  // 896 is the last boundary; 4 of the 5 generated tokens are computed.
  const Division expected = {{1, 1004}, {2, 108}, {3, 108}, {4, 108}, {5, 40}, {6, 360}};
  EXPECT_EQ(computed, expected);
}

TEST(SchedulerTest, APromptThatIsAwaitedIsNotLast) {
  Scheduler scheduler(Caching(8, 128));
  Sequence oldest = MakeSequence(1, 5000, 1);
  oldest.tokens[0] = 1;
  ASSERT_TRUE(scheduler.Add(std::move(oldest)).ok());
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 4000, 1)).ok());
  Sequence middle = MakeSequence(3, 2000, 1);
  middle.tokens[0] = 3;
  ASSERT_TRUE(scheduler.Add(std::move(middle)).ok());
  EXPECT_FALSE(Tokens(scheduler.Plan()).contains(2));
  CommitAll(scheduler, scheduler.plan(), 7);
  ASSERT_TRUE(scheduler.Add(MakeSequence(4, 300, 1)).ok());  // the first 300 of sequence 2
  EXPECT_TRUE(Tokens(scheduler.Plan()).contains(2));
}

TEST(SchedulerTest, TheReasonOfALostPrefixIsTold) {
  Scheduler scheduler(Caching(1, 512, /*compressed_pages=*/20));
  const auto ask = [&](uint64_t id, int32_t fill, uint64_t turn, uint64_t continues,
                       std::string salt = "") {
    Sequence sequence = MakeSequence(id, 1000, 1);
    for (int32_t& token : sequence.tokens) token += fill;
    sequence.turn = turn;
    sequence.continues = continues;
    sequence.salt = std::move(salt);
    EXPECT_TRUE(scheduler.Add(std::move(sequence)).ok());
    std::vector<LostPrefix> lost = scheduler.Plan().lost;
    CommitAll(scheduler, scheduler.plan(), 7);
    while (scheduler.running() > 0) CommitAll(scheduler, scheduler.Plan(), 7);
    return lost;
  };
  EXPECT_TRUE(ask(1, 0, 100, 0).empty());
  EXPECT_TRUE(ask(2, 0, 101, 100).empty());
  std::vector<LostPrefix> lost = ask(3, 9, 102, 101);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].id, 3u);
  EXPECT_EQ(lost[0].expected, 896);
  EXPECT_EQ(lost[0].found, 0);
  EXPECT_EQ(lost[0].reason, CacheMiss::kTemplate);
  lost = ask(4, 9, 103, 102, "salt");
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].reason, CacheMiss::kSalt);
  for (uint64_t id = 10; id < 14; ++id)
    EXPECT_TRUE(ask(id, 1000 * static_cast<int32_t>(id), 0, 0).empty());
  lost = ask(20, 0, 104, 101);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].reason, CacheMiss::kEvicted);
  EXPECT_TRUE(ask(21, 0, 105, 9999).empty());  // a turn that is not known
  EXPECT_EQ(scheduler.counts().lost_prefixes, 3u);
  const auto& missed = scheduler.counts().missed_tokens;
  for (const CacheMiss reason : {CacheMiss::kTemplate, CacheMiss::kSalt, CacheMiss::kEvicted}) {
    EXPECT_EQ(missed[static_cast<size_t>(reason)], 896u) << static_cast<int>(reason);
  }
}

TEST(SchedulerTest, BackgroundComesLastAndIsNotCounted) {
  Scheduler scheduler(Caching(2, 1024));
  Sequence background = MakeSequence(1, 1000, 1);
  background.background = true;
  background.priority = -5;
  ASSERT_TRUE(scheduler.Add(background).ok());
  EXPECT_EQ(scheduler.foreground_waiting(), 0);
  // Alone, a block a step.
  EXPECT_EQ(Tokens(scheduler.Plan()), (Division{{1, 128}}));
  EXPECT_EQ(scheduler.running(), 1);
  EXPECT_EQ(scheduler.foreground_running(), 0);
  CommitAll(scheduler, scheduler.plan(), 5);
  // Whoever comes is before it, and does not wait for what they have in common.
  Sequence first = MakeSequence(2, 500, 2);
  first.tokens[0] = 1;
  ASSERT_TRUE(scheduler.Add(std::move(first)).ok());
  EXPECT_EQ(scheduler.foreground_waiting(), 1);
  EXPECT_EQ(scheduler.Plan().steps[0].sequence->id, 2u);
  CommitAll(scheduler, scheduler.plan(), 5);
  EXPECT_EQ(scheduler.foreground_running(), 1);
  while (!scheduler.Plan().steps.empty()) CommitAll(scheduler, scheduler.plan(), 5);
  EXPECT_EQ(scheduler.counts().queried_tokens, 500u);
  EXPECT_EQ(scheduler.counts().background_tokens, 1000u);
  // What it leaves is a prefix like any other.
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 1100, 1)).ok());
  EXPECT_EQ(scheduler.Plan().steps[0].first_position, 896);
  CommitAll(scheduler, scheduler.plan(), 5);
  EXPECT_EQ(scheduler.counts().hit_tokens, 896u);
  EXPECT_TRUE(scheduler.CheckBooks().ok());
}

TEST(SchedulerTest, BackgroundPreemptsNobodyAndGivesWay) {
  Scheduler scheduler(Caching(3, 300, /*compressed_pages=*/8));
  Sequence background = MakeSequence(1, 500, 1);
  background.background = true;
  ASSERT_TRUE(scheduler.Add(std::move(background)).ok());
  for (int step = 0; step < 4; ++step) {
    scheduler.Plan();
    CommitAll(scheduler, scheduler.plan(), 5);
  }
  Sequence second = MakeSequence(2, 900, 100);
  second.tokens[0] = 1;
  ASSERT_TRUE(scheduler.Add(std::move(second)).ok());
  while (scheduler.foreground_running() + scheduler.foreground_waiting() > 0) {
    bool runs = false;
    for (const SequenceStep& step : scheduler.Plan().steps) runs |= step.sequence->id == 2;
    EXPECT_TRUE(runs);
    CommitAll(scheduler, scheduler.plan(), 5);
    ASSERT_TRUE(scheduler.CheckBooks().ok());
  }
  EXPECT_EQ(scheduler.counts().recomputed_tokens, 0u);  // of the request
}

TEST(SchedulerTest, AFailedSequenceLeavesNothingBehind) {
  Scheduler scheduler(Caching(2, 512));
  ASSERT_TRUE(scheduler.Add(MakeSequence(1, 1000, 9)).ok());
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_EQ(scheduler.cache().index().blocks(), 4);
  (void)scheduler.Plan();
  (void)scheduler.Fail();
  EXPECT_EQ(scheduler.cache().index().blocks(), 0);
  EXPECT_TRUE(scheduler.copies().empty());
  EXPECT_TRUE(scheduler.CheckBooks().ok());
  // A cancelled one leaves what it computed.
  ASSERT_TRUE(scheduler.Add(MakeSequence(2, 1000, 9)).ok());
  CommitAll(scheduler, scheduler.Plan(), 7);
  EXPECT_TRUE(scheduler.Cancel(2));
  ASSERT_TRUE(scheduler.Add(MakeSequence(3, 1000, 1)).ok());
  EXPECT_EQ(RunToEnd(scheduler, 3), 1000 - 512);
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
  EXPECT_TRUE(scheduler.CheckBooks().ok());
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
