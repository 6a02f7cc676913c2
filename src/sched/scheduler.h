// Decides what each step computes. Integers only: no clock, no thread, no device; the simulation
// test beside it is the proof that it works.
//
// Admission is first come, first served, by pages: the oldest waiting sequence is let in when its
// whole possible need (prompt and max_tokens) fits, so that nothing ever runs out. Younger ones
// never overtake it.
//
// A step brings every sequence that has a single token left to compute that token, so decoding
// never stalls. What is left of max_num_batched_tokens goes to prompts in chunks, in two lanes:
// half to the oldest prompt, and the rest to the others, shortest remainder first; what one lane
// cannot use goes to the other. A short prompt thus never waits behind a long one, and no prompt
// starves: one day it is the oldest, and then half of every step is its own.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/plan.h"
#include "sched/sequence.h"
#include "sched/step_plan.h"

namespace seacliff {

struct SchedulerOptions {
  int64_t max_num_seqs = 16;
  int64_t max_num_batched_tokens = 512;  // at least max_num_seqs
  int64_t max_waiting = 1024;
  int64_t window = kPageTokens;
  CacheSize cache;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Queues a sequence. Exhausted when the queue is full, InvalidArgument if the cache could not
  // hold it even alone.
  Status Add(Sequence sequence);
  // Forgets a sequence and frees all it holds, at once. False if there is none of this id. Not
  // between Plan and Commit.
  bool Cancel(uint64_t id);

  // The next step; without steps when there is nothing to do. Commit or Fail must follow.
  const StepPlan& Plan();
  // Ends the step: `sampled` has one entry for each entry of the plan. The outcomes, in the plan's
  // order, hold until the next call.
  std::span<const StepOutcome> Commit(std::span<const SampledTokens> sampled);
  // Ends the step without results: its sequences end with Finish::kError.
  std::span<const StepOutcome> Fail();

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  const CachePlan& cache() const { return cache_; }
  // Checks the cache's books against the running sequences; for tests.
  void CheckBooks() const;

 private:
  void Admit();
  void PlanDecodes(int64_t& budget);
  void PlanPrompts(int64_t budget);
  void Bring(Sequence& sequence, int64_t tokens);
  void CommitOne(Sequence& sequence, const SequenceStep& step, const SampledTokens& sampled);
  void RemoveFinished();

  SchedulerOptions options_;
  CachePlan cache_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // oldest first
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first

  StepPlan plan_;
  bool planned_ = false;  // a plan is out and not committed
  std::vector<Sequence*> prompts_;
  std::vector<Sequence*> planned_sequences_;  // of plan_.steps
  std::vector<StepOutcome> outcomes_;
};

}  // namespace seacliff
