// Random traffic for tests of the scheduler, with every promise checked at every step. The cache is
// simulated by hashes: each page, slot and snapshot knows which prefix was written into it, so a
// step that would read anything else is seen.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

#include "sched/scheduler.h"
#include "tensor/state_rows.h"

namespace seacliff {

inline uint64_t MixHash(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15;
  return hash ^ hash >> 29;
}

// The cache's memory: what was written where last. A prefix is the hash of its tokens and salt.
class SimulatedMemory {
 public:
  SimulatedMemory(const CacheSize& size, int64_t window)
      : window_tokens_(window),
        window_(static_cast<size_t>(size.window_pages)),
        compressed_(static_cast<size_t>(size.compressed_pages)),
        rows_4_(static_cast<size_t>(size.slots * StateRows(4))),
        snapshots_(static_cast<size_t>(size.snapshots * kStatePageEnd)),
        rows_128_(static_cast<size_t>(size.slots)) {}

  void Copy(std::span<const RowCopy> copies) {
    for (const RowCopy& copy : copies) {
      for (int64_t i = 0; i < kStatePageEnd; ++i) {
        uint64_t& live = Row4(copy.slot, copy.position - kStatePageEnd + i);
        uint64_t& kept = snapshots_.at(static_cast<size_t>(copy.snapshot * kStatePageEnd + i));
        (copy.to_slot ? live : kept) = copy.to_slot ? kept : live;
      }
    }
  }

  // Runs a sequence's part of a step; prefixes[n] is the prefix of n tokens.
  void Step(const SequenceStep& step, const std::vector<uint64_t>& prefixes) {
    const int64_t first = step.first_position;
    const int64_t end = first + static_cast<int64_t>(step.ids.size());
    const auto prefix = [&](int64_t n) { return prefixes[static_cast<size_t>(n)]; };
    uint64_t& rows_128 = rows_128_[static_cast<size_t>(step.slot())];
    // The block at hand and the one before it; a row knows the prefix that ends there.
    for (int64_t p = std::max<int64_t>(0, first / 4 * 4 - 4); p < first; ++p) {
      ASSERT_EQ(Row4(step.slot(), p), prefix(p + 1));
    }
    for (int64_t p = first; p < end; ++p) Row4(step.slot(), p) = prefix(p + 1);
    if (first % kPageTokens != 0) {
      ASSERT_EQ(rows_128, prefix(first));
    }
    rows_128 = prefix(end);
    const int64_t seen = std::max<int64_t>(0, first - window_tokens_ + 1);
    for (int64_t begin = 0; begin < end; begin += kPageTokens) {
      const auto page = static_cast<size_t>(begin / kPageTokens);
      const int64_t written = std::min(begin + kPageTokens, first);  // before this step
      const int64_t now = std::min(begin + kPageTokens, end);
      uint64_t& compressed = compressed_.at(static_cast<size_t>(step.compressed_pages()[page]));
      if (begin < first) {
        ASSERT_EQ(compressed, prefix(written));
      }
      if (now > written || begin >= first) compressed = prefix(now);
      if (begin + kPageTokens <= seen) continue;
      ASSERT_GE(step.window_pages()[page], 0);
      uint64_t& window = window_.at(static_cast<size_t>(step.window_pages()[page]));
      if (begin < first) {
        ASSERT_EQ(window, prefix(written));
      }
      if (now > written || begin >= first) window = prefix(now);
    }
  }

 private:
  uint64_t& Row4(int64_t slot, int64_t position) {
    return rows_4_.at(static_cast<size_t>(slot * StateRows(4) + StateRow<int64_t>(4, position)));
  }

  int64_t window_tokens_;
  std::vector<uint64_t> window_, compressed_, rows_4_, snapshots_, rows_128_;
};

// How a run is set up; the rest is drawn at random.
struct SimulationSetup {
  bool plenty = false;        // of pages and snapshots: nothing is evicted, nobody preempted
  bool failures = true;       // failed steps and failed rows
  bool out_of_pages = false;  // pages are withheld at random moments
  bool priorities = false;
  bool caching = true;
};

class Simulation {
 public:
  Simulation(uint64_t seed, const SimulationSetup& setup) : setup_(setup), random_(seed) {
    options_.max_num_seqs = Pick(1, 12);
    options_.max_num_batched_tokens = Pick(options_.max_num_seqs, Pick(0, 1) == 0 ? 24 : 700);
    options_.max_waiting = Pick(1, 30);
    options_.window = Pick(0, 2) == 0 ? Pick(1, 400) : kPageTokens;
    options_.snapshot_every = Pick(1, 8) * kPageTokens;
    options_.unpaced_tokens = Pick(0, 2) == 0 ? Pick(1, 600) : 0;
    longest_ = Pick(2, 1500);
    CacheLimits limits;
    limits.max_num_seqs = options_.max_num_seqs;
    limits.max_num_batched_tokens = options_.max_num_batched_tokens;
    limits.max_model_len = limits.max_positions = longest_;
    limits.window = options_.window;
    limits.prefix_caching = setup.caching;
    CacheSize& size = options_.cache;
    size = SizeCache(limits, {1, 1, 1, 1})->size;
    if (setup.plenty) {
      size.compressed_pages = 6000;
      size.window_pages -= size.snapshots * static_cast<int32_t>(SnapshotWindow(options_.window));
      size.snapshots = 3000;
      size.window_pages += size.snapshots * static_cast<int32_t>(SnapshotWindow(options_.window));
    } else {
      // Too few pages for all sequences at once, never too few for one.
      const int64_t least = PagesOf(longest_);
      size.compressed_pages =
          static_cast<int32_t>(Pick(0, 1) == 0 ? least : Pick(least, 3 * least));
    }
    scheduler_.emplace(options_);
    memory_.emplace(size, options_.window);
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      // Now crowds, now next to nothing, so that all ends now and then.
      arriving_ = step % 500 < 300;
      if (arriving_) Arrive();
      if (Pick(0, 79) == 0) CancelOne();
      if (Pick(0, 9) == 0) {
        prompt_limit_ = Pick(0, 1) == 0 ? 1 << 20 : Pick(0, 40);
        scheduler_->set_prompt_limit(prompt_limit_);
      }
      if (setup_.out_of_pages) {
        withheld_ = Pick(0, 3) == 0 ? Pick(0, options_.cache.compressed_pages) : 0;
        scheduler_->Withhold(static_cast<int32_t>(withheld_));
      }
      Step();
      if (testing::Test::HasFatalFailure()) return;
    }
    arriving_ = false;
    withheld_ = 0;
    scheduler_->Withhold(0);
    prompt_limit_ = 16;
    scheduler_->set_prompt_limit(prompt_limit_);
    int64_t bound = 1000;
    for (const auto& [id, followed] : live_) bound += 2 * followed.longest();
    for (; !live_.empty() && bound > 0; --bound) {
      Step();
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(scheduler_->running() + scheduler_->waiting(), 0);
    EXPECT_EQ(scheduler_->cache().slots().used(), 0);
    EXPECT_EQ(scheduler_->cache().available(), options_.cache.compressed_pages);
    EXPECT_EQ(recomputed_, scheduler_->counts().recomputed_tokens);
    EXPECT_LE(restarts_, scheduler_->counts().preemptions);
    if (setup_.plenty) {
      EXPECT_EQ(scheduler_->counts().preemptions, 0u);
      EXPECT_EQ(scheduler_->cache().evicted_blocks(), 0u);
    }
  }

  const Scheduler& scheduler() const { return *scheduler_; }

 private:
  static constexpr int32_t kStopId = 0;

  struct Followed {
    int64_t prompt_len = 0, max_tokens = 0;
    std::string salt;
    std::vector<int32_t> tokens;     // and what was generated
    std::vector<uint64_t> prefixes;  // [n]: of n tokens
    bool admitted = false;
    int64_t computed = 0, furthest = 0;
    int64_t known = 0;     // tokens that were known when it was let in
    int64_t patience = 0;  // steps that it may take from here on
    bool scores = false;
    int64_t scored = 0;  // prompt tokens whose logits it got

    void Push(int32_t token) {
      tokens.push_back(token);
      prefixes.push_back(MixHash(prefixes.back(), static_cast<uint64_t>(token)));
    }
    int64_t longest() const { return prompt_len + max_tokens; }
    int64_t size() const { return static_cast<int64_t>(tokens.size()); }
    uint64_t prefix(int64_t n) const { return prefixes[static_cast<size_t>(n)]; }
  };

  int64_t Pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  // New conversations, further turns, and prompts that were there before, whole or in part.
  std::vector<int32_t> MakePrompt() {
    std::vector<int32_t> prompt;
    if (!histories_.empty() && Pick(0, 2) > 0) {
      prompt =
          histories_[static_cast<size_t>(Pick(0, static_cast<int64_t>(histories_.size()) - 1))];
      if (Pick(0, 3) == 0)
        prompt.resize(static_cast<size_t>(Pick(0, static_cast<int64_t>(prompt.size()))));
    }
    const int64_t more = Pick(0, 3) == 0 ? Pick(1, longest_) : Pick(1, 20);
    for (int64_t i = 0; i < more; ++i) prompt.push_back(static_cast<int32_t>(Pick(0, 999)));
    prompt.resize(std::min(prompt.size(), static_cast<size_t>(longest_ - 1)));
    return prompt;
  }

  void Arrive() {
    for (int64_t n = Pick(0, 2); n > 0; --n) {
      Followed followed;
      followed.salt = Pick(0, 4) == 0 ? "tenant" : "";
      followed.prefixes.push_back(followed.salt.empty() ? 1 : 2);
      for (const int32_t token : MakePrompt()) followed.Push(token);
      followed.prompt_len = followed.size();
      followed.max_tokens =
          Pick(1, std::min<int64_t>(Pick(0, 1) == 0 ? 600 : 60, longest_ - followed.prompt_len));
      Sequence sequence;
      sequence.id = ++last_id_;
      sequence.tokens = followed.tokens;
      sequence.max_tokens = followed.max_tokens;
      sequence.stop_ids = {kStopId};
      sequence.salt = followed.salt;
      // In plenty no block is to be computed twice, but these compute all of theirs.
      followed.scores = sequence.scores = !setup_.plenty && Pick(0, 4) == 0;
      if (setup_.priorities) {
        sequence.priority = static_cast<int32_t>(Pick(-1, 1));
        sequence.background = Pick(0, 7) == 0;
      }
      const bool full = scheduler_->waiting() >= options_.max_waiting;
      const Status status = scheduler_->Add(std::move(sequence));
      ASSERT_EQ(status.ok(), !full) << status.message();
      if (!status.ok()) continue;
      // When all before it are done it is the first, never preempted, and gets half of every step.
      followed.patience = 1000 + 2 * followed.longest();
      for (const auto& [id, other] : live_) followed.patience += 2 * other.longest();
      histories_.push_back(followed.tokens);
      live_[last_id_] = std::move(followed);
      while (histories_.size() > 12) histories_.erase(histories_.begin());
    }
  }

  void CancelOne() {
    if (live_.empty()) return;
    auto victim = live_.begin();
    std::advance(victim, Pick(0, static_cast<int64_t>(live_.size()) - 1));
    ASSERT_TRUE(scheduler_->Cancel(victim->first));
    ASSERT_FALSE(scheduler_->Cancel(victim->first));
    Leave(victim->first);
    CheckBooks();
  }

  void CheckBooks() {
    const Status books = scheduler_->CheckBooks();
    ASSERT_TRUE(books.ok()) << books.message();
  }

  // The end of a sequence that did not fail.
  void Leave(uint64_t id) {
    const Followed& followed = live_[id];
    if (followed.scores && followed.size() > followed.prompt_len) {
      EXPECT_EQ(followed.scored, followed.prompt_len - 1);
    }
    if (followed.computed >= followed.prompt_len) {
      left_.insert(followed.prefix(followed.computed / kPageTokens * kPageTokens));
    }
    if (Pick(0, 1) == 0) histories_.push_back(followed.tokens);
    live_.erase(id);
  }

  void Step() {
    const StepPlan& plan = scheduler_->Plan();
    if (withheld_ == 0) {
      ASSERT_EQ(plan.steps.empty(), live_.empty());
    }
    CheckBooks();
    if (plan.steps.empty()) return;
    CheckPlan(plan);
    if (testing::Test::HasFatalFailure()) return;
    memory_->Copy(plan.copies);
    for (const SequenceStep& step : plan.steps) {
      memory_->Step(step, live_[step.sequence->id].prefixes);
      if (testing::Test::HasFatalFailure()) return;
    }
    if (arriving_ && Pick(0, 7) == 0) Arrive();  // the plan is out
    if (setup_.failures && Pick(0, 399) == 0) {
      for (const StepOutcome& outcome : scheduler_->Fail()) {
        ASSERT_EQ(outcome.finish, Finish::kError);
        live_.erase(outcome.id);
      }
      ASSERT_TRUE(scheduler_->copies().empty());
      CheckBooks();
      return;
    }
    std::vector<int32_t> tokens(plan.steps.size());
    std::vector<SampledTokens> sampled(plan.steps.size());
    std::vector<int64_t> wanted(plan.steps.size());
    for (size_t i = 0; i < plan.steps.size(); ++i) {
      Followed& followed = live_[plan.steps[i].sequence->id];
      tokens[i] = Pick(0, 399) == 0 ? kStopId : static_cast<int32_t>(Pick(1, 99));
      wanted[i] = plan.steps[i].logits - plan.steps[i].prompt_logits;
      sampled[i].failed = wanted[i] > 0 && setup_.failures && Pick(0, 4999) == 0;
      if (sampled[i].failed) continue;
      if (wanted[i] > 0) sampled[i].ids = {&tokens[i], 1};
      followed.scored += plan.steps[i].prompt_logits;
      Compute(followed, static_cast<int64_t>(plan.steps[i].ids.size()));
    }
    const std::span<const StepOutcome> outcomes = scheduler_->Commit(sampled);
    memory_->Copy(scheduler_->copies());
    ASSERT_EQ(outcomes.size(), sampled.size());
    for (size_t i = 0; i < outcomes.size(); ++i) {
      Followed& followed = live_[outcomes[i].id];
      if (outcomes[i].kept == 1) followed.Push(tokens[i]);
      const int64_t generated = followed.size() - followed.prompt_len;
      Finish expected = Finish::kNone;
      if (sampled[i].failed)
        expected = Finish::kError;
      else if (wanted[i] > 0 && tokens[i] == kStopId)
        expected = Finish::kStop;
      else if (wanted[i] > 0 && generated == followed.max_tokens)
        expected = Finish::kLength;
      ASSERT_EQ(outcomes[i].finish, expected);
      if (expected == Finish::kError) live_.erase(outcomes[i].id);
      if (expected == Finish::kStop || expected == Finish::kLength) Leave(outcomes[i].id);
    }
    CheckBooks();
  }

  // Notes what the sequence computes; nothing that was known but for what lay before the place
  // that it had to start from.
  void Compute(Followed& followed, int64_t count) {
    const int64_t from = followed.computed;
    followed.computed += count;
    recomputed_ += static_cast<uint64_t>(
        std::max<int64_t>(0, std::min(followed.computed, followed.furthest) - from));
    followed.furthest = std::max(followed.furthest, followed.computed);
    for (int64_t end = (from / kPageTokens + 1) * kPageTokens; end <= followed.computed;
         end += kPageTokens) {
      const bool again = !computed_.insert(followed.prefix(end)).second;
      // The block of a prompt's last token is computed in any case.
      if (setup_.plenty && setup_.caching && end > followed.known && end < followed.prompt_len) {
        EXPECT_FALSE(again) << "tokens up to " << end << " were computed twice";
      }
    }
    // What B promises to be a place to start from.
    const int64_t last = (followed.prompt_len - 1) / kPageTokens * kPageTokens;
    for (const int64_t place : {last, followed.known}) {
      if (from < place && place <= followed.computed) left_.insert(followed.prefix(place));
    }
  }

  void CheckPlan(const StepPlan& plan) {
    ASSERT_LE(static_cast<int64_t>(plan.steps.size()), options_.max_num_seqs);
    ASSERT_LE(plan.tokens, options_.max_num_batched_tokens);
    int64_t tokens = 0, logits = 0, prompt_tokens = 0;
    for (const SequenceStep& step : plan.steps) {
      ASSERT_TRUE(live_.contains(step.sequence->id));
      Followed& followed = live_[step.sequence->id];
      ASSERT_FALSE(step.ids.empty());
      if (!followed.admitted) CheckMatch(followed, step);
      if (step.first_position != followed.computed) {  // it was preempted
        ASSERT_EQ(step.first_position % kPageTokens, 0);
        // Others compute further only if they do not wait for it: those that are scored.
        ASSERT_TRUE(step.first_position < followed.computed ||
                    (!setup_.plenty && computed_.contains(followed.prefix(step.first_position))));
        ++restarts_;
        followed.computed = step.first_position;
      }
      const int64_t end = step.first_position + static_cast<int64_t>(step.ids.size());
      ASSERT_TRUE(std::equal(step.ids.begin(), step.ids.end(),
                             followed.tokens.begin() + step.first_position));
      const int64_t first_row = std::max(step.first_position, followed.scored);
      const int64_t scores = std::min(end, followed.prompt_len - 1) - first_row;
      ASSERT_EQ(step.prompt_logits, followed.scores ? std::max<int64_t>(0, scores) : 0);
      ASSERT_EQ(step.logits - step.prompt_logits, end == followed.size() ? 1 : 0);
      if (step.prompt_logits > 0) {
        ASSERT_LE(step.first_position, followed.scored);  // none is left out
      }
      tokens += static_cast<int64_t>(step.ids.size());
      logits += step.logits;
      if (step.ids.size() > 1 || step.logits == 0)
        prompt_tokens += static_cast<int64_t>(step.ids.size());
    }
    ASSERT_EQ(tokens, plan.tokens);
    ASSERT_EQ(logits, plan.logits);
    ASSERT_LE(logits, options_.max_num_seqs);
    if (options_.unpaced_tokens == 0) {
      ASSERT_EQ(plan.paced, plan.decodes > 0);
    }
    if (plan.paced) {
      ASSERT_LE(prompt_tokens, prompt_limit_);
    }
    CheckNobodyStalls(plan);
  }

  // What a sequence found when it was let in.
  void CheckMatch(Followed& followed, const SequenceStep& step) {
    followed.admitted = true;
    followed.computed = followed.furthest = step.first_position;
    ASSERT_EQ(step.first_position, step.sequence->cached);
    ASSERT_EQ(step.first_position % kPageTokens, 0);
    ASSERT_LT(step.first_position, followed.size());
    if (!setup_.caching) {
      ASSERT_EQ(step.first_position, 0);
    }
    int64_t place = 0;
    for (int64_t end = kPageTokens; end <= followed.size(); end += kPageTokens) {
      if (computed_.contains(followed.prefix(end))) followed.known = end;
      if (left_.contains(followed.prefix(end)) && end < followed.size()) place = end;
    }
    if (setup_.plenty && setup_.caching && !setup_.failures) {
      EXPECT_GE(step.first_position, place);
    }
  }

  // Whoever decodes is in the step unless pages ran out, and nobody waits for ever.
  void CheckNobodyStalls(const StepPlan& plan) {
    std::unordered_set<uint64_t> planned;
    for (const SequenceStep& step : plan.steps) planned.insert(step.sequence->id);
    for (auto& [id, followed] : live_) {
      if (setup_.plenty && followed.size() > followed.prompt_len) {
        ASSERT_TRUE(planned.contains(id));
      }
      if (setup_.priorities || setup_.out_of_pages || prompt_limit_ == 0) continue;
      ASSERT_GE(--followed.patience, 0) << "sequence " << id << " starves";
    }
  }

  SimulationSetup setup_;
  std::mt19937_64 random_;
  SchedulerOptions options_;
  int64_t longest_ = 0;
  std::optional<Scheduler> scheduler_;
  std::optional<SimulatedMemory> memory_;
  int64_t prompt_limit_ = 1 << 20, withheld_ = 0;
  uint64_t last_id_ = 0;
  bool arriving_ = false;
  std::map<uint64_t, Followed> live_;
  std::vector<std::vector<int32_t>> histories_;
  std::unordered_set<uint64_t> computed_;  // prefixes of whole blocks that ever were
  std::unordered_set<uint64_t> left_;      // prefixes that can be started behind
  uint64_t restarts_ = 0, recomputed_ = 0;
};

}  // namespace seacliff
