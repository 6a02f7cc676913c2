// Decides what each step computes. Integers only: no clock, no thread, no device; the simulation
// test beside it is the proof that it works.
//
// Order is by priority, then by arrival. The first waiting sequence is let in when there is a slot
// and when the pages that are free or can be freed cover its uncached prompt, what running prompts
// still need, and one page for each running sequence. A sequence whose next block a running one is
// about to compute waits for it instead, so that equal prompts and prefixes are computed once;
// those behind may pass it.
//
// A step brings every sequence that has a single token left to compute that token, so decoding
// never stalls. What is left of max_num_batched_tokens goes to prompts in chunks, in two lanes:
// half to the oldest prompt, and the rest to the others, shortest remainder first; what one lane
// cannot use goes to the other. A short prompt thus never waits behind a long one, and no prompt
// starves: one day it is the oldest, and then half of every step is its own.
//
// Beside decodes a step brings prompts no more tokens than the engine says, so that one long prompt
// does not slow down the rest. But while any prompt has not had its first unpaced_tokens, steps are
// as long as they may be: many short chunks cost more in all than one long one.
//
// When pages run out, the last running sequence in the order that is not in the plan yet is
// preempted: its blocks stay in the prefix index, and it waits in its place by arrival. The first
// one is never preempted, so work goes on.
//
// A step wants at most max_num_seqs rows of logits. Sequences whose prompt is scored share those
// that no running sequence may need for its next token, and find nothing in the cache.
//
// Background sequences come after all others and take a block a step, so that a step of theirs is
// short for whoever comes meanwhile. They are not counted.
//
// Snapshots are taken where they will be wanted: at the last block boundary of a prompt, where
// prompts branch, and every kSnapshotEvery tokens. Chunks end at the last two; those of the last
// kind may come a quarter earlier, at the boundary before a chunk's end. Besides, every sequence
// keeps one at the newest boundary that it passed; the last of an answer stays.
#pragma once

#include <array>
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

inline constexpr int64_t kSnapshotEvery = 8192;

struct SchedulerOptions {
  int64_t max_num_seqs = 16;
  int64_t max_num_batched_tokens = 512;  // at least max_num_seqs
  int64_t max_waiting = 1024;
  int64_t window = kPageTokens;
  int64_t snapshot_every = kSnapshotEvery;
  int64_t unpaced_tokens = 0;
  CacheSize cache;
};

struct SchedulerCounts {
  // Of sequences let in for the first time: prompt tokens, those found in the cache, and those that
  // were not although whole blocks could have been.
  uint64_t queried_tokens = 0, hit_tokens = 0;
  std::array<uint64_t, kCacheMisses> missed_tokens = {};
  uint64_t lost_prefixes = 0;
  uint64_t preemptions = 0, recomputed_tokens = 0;
  uint64_t background_tokens = 0;  // prompt tokens computed for background sequences
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // Queues a sequence. Exhausted when the queue is full, InvalidArgument if the cache could not
  // hold it even alone.
  Status Add(Sequence sequence);
  // Forgets a sequence and frees all it holds, at once; complete blocks stay cached. False if there
  // is none of this id. Not between Plan and Commit.
  bool Cancel(uint64_t id);
  // The most prompt tokens of a paced step, from the next plan on. 0 brings none, so it must not
  // stay.
  void set_prompt_limit(int64_t tokens) { prompt_limit_ = tokens; }

  // The next step; without steps when there is nothing to do. Commit or Fail must follow.
  const StepPlan& Plan();
  const StepPlan& plan() const { return plan_; }  // the one that is out
  // Ends the step: `sampled` has one entry for each entry of the plan. The outcomes, in the plan's
  // order, hold until the next call.
  std::span<const StepOutcome> Commit(std::span<const SampledTokens> sampled);
  // Ends the step without results: its sequences end with Finish::kError.
  std::span<const StepOutcome> Fail();
  // The copies that Commit asks for, to be made in this order before the next step and its copies.
  std::span<const RowCopy> copies() const { return copies_; }

  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  // Without background sequences.
  int64_t foreground_waiting() const { return ForegroundOf(waiting_); }
  int64_t foreground_running() const { return ForegroundOf(running_); }
  const CachePlan& cache() const { return cache_; }
  const SchedulerCounts& counts() const { return counts_; }
  // Checks the cache's books against the running sequences.
  Status CheckBooks() const;

  // For tests: so many pages are treated as in use.
  void Withhold(int32_t pages) { withheld_ = pages; }

 private:
  using Owned = std::unique_ptr<Sequence>;
  // The last prompts' turns (seacliff/engine.h), and how many blocks of each were computed.
  struct Turn {
    uint64_t number = 0;
    int32_t blocks = 0;
  };

  // They come last.
  template <typename Sequences>
  static int64_t ForegroundOf(const Sequences& sequences) {
    auto count = static_cast<int64_t>(sequences.size());
    while (count > 0 && sequences[static_cast<size_t>(count) - 1]->background) --count;
    return count;
  }

  // Who runs (admission.cc).
  void Admit();
  bool WaitsForRunning(const Sequence& sequence);
  bool Fits(const Sequence& sequence, const PrefixMatch& match) const;
  void LetIn(size_t waiting, const PrefixMatch& match);
  void CountMatch(Sequence& sequence);
  void CountLostPrefix(const Sequence& sequence, PrefixMatch& match);
  Turn& TurnOf(uint64_t number) { return turns_[number % turns_.size()]; }
  bool PreemptFor(const Sequence& sequence);
  void Preempt(size_t running);
  void RelieveStarved();

  // What a step computes (scheduler.cc).
  int64_t available() const { return cache_.available() - withheld_; }
  int64_t Earliest(int64_t position) const;
  int64_t NextStop(const Sequence& sequence) const;
  bool IsStart(const Sequence& sequence, int64_t position) const;
  int64_t Reach(const Sequence& sequence) const;
  bool Extend(Sequence& sequence, int64_t tokens);
  bool Paces() const;
  void PlanDecodes(int64_t& budget);
  void PlanPrompts(int64_t budget);
  void BringChunk(Sequence& sequence, int64_t tokens);
  void Bring(Sequence& sequence, int64_t tokens);
  void CommitOne(Sequence& sequence, const SequenceStep& step, const SampledTokens& sampled);
  void KeepPrefix(Sequence& sequence, int64_t from);
  void RemoveFinished();

  SchedulerOptions options_;
  CachePlan cache_;
  std::deque<Owned> waiting_;  // both in order
  std::vector<Owned> running_;
  std::vector<Turn> turns_;
  uint64_t arrivals_ = 0;
  int64_t prompt_limit_;
  int32_t withheld_ = 0;
  int64_t spare_logits_ = 0;  // rows of the plan beside one for each running sequence
  SchedulerCounts counts_;

  StepPlan plan_;
  bool planned_ = false;  // a plan is out and not committed
  std::vector<Sequence*> prompts_;
  std::vector<Sequence*> planned_sequences_;  // of plan_.steps
  std::vector<StepOutcome> outcomes_;
  std::vector<RowCopy> copies_;
};

}  // namespace seacliff
