// Planning and committing of steps; see scheduler.h for the rules.
#include "sched/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace seacliff {
namespace {

// Such a part of snapshot_every is what snapshots may come early, so that a chunk that ends there
// is not followed by a short one.
constexpr int64_t kEarly = 4;
constexpr size_t kTurns = 4096;

// The newest block boundary with a token behind it.
int64_t LastBoundary(int64_t tokens) { return (tokens - 1) / kPageTokens * kPageTokens; }

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      cache_(options.cache, options.window, options.max_num_batched_tokens),
      turns_(kTurns),
      prompt_limit_(std::numeric_limits<int64_t>::max()) {
  SC_CHECK(options.max_num_seqs >= 1 && options.max_num_batched_tokens >= options.max_num_seqs);
  SC_CHECK(options.snapshot_every % kPageTokens == 0);
  const size_t seqs = static_cast<size_t>(options.max_num_seqs);
  running_.reserve(seqs);
  plan_.copies.reserve(seqs);
  plan_.steps.reserve(seqs);
  plan_.lost.reserve(seqs);
  prompts_.reserve(seqs);
  planned_sequences_.reserve(seqs);
  outcomes_.reserve(seqs);
  copies_.reserve(2 * seqs);
}

Status Scheduler::Add(Sequence sequence) {
  SC_CHECK(!sequence.tokens.empty() && sequence.max_tokens >= 1);
  if (waiting() >= options_.max_waiting) {
    return Exhausted(fmt::format("{} requests are waiting already", waiting()));
  }
  sequence.prompt_len = static_cast<int64_t>(sequence.tokens.size());
  sequence.computed = 0;
  if (!cache_.FitsAlone(sequence.longest())) {
    return InvalidArgument(
        fmt::format("the cache cannot hold a sequence of {} tokens", sequence.longest()));
  }
  sequence.arrival = ++arrivals_;
  ExtendHashes(sequence.salt, sequence.tokens, sequence.hashes);
  auto owned = std::make_unique<Sequence>(std::move(sequence));
  const auto order = [](const Owned& a, const Owned& b) { return Before(*a, *b); };
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), owned, order),
                  std::move(owned));
  return OkStatus();
}

bool Scheduler::Cancel(uint64_t id) {
  SC_CHECK(!planned_);
  const auto has_id = [id](const Owned& sequence) { return sequence->id == id; };
  const auto running = std::find_if(running_.begin(), running_.end(), has_id);
  if (running != running_.end()) {
    cache_.Close((*running)->pages);
    running_.erase(running);
    return true;
  }
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(), has_id);
  if (waiting == waiting_.end()) return false;
  waiting_.erase(waiting);
  return true;
}

const StepPlan& Scheduler::Plan() {
  SC_CHECK(!planned_);
  plan_.copies.clear();
  plan_.steps.clear();
  plan_.lost.clear();
  plan_.tokens = plan_.logits = plan_.decodes = 0;
  planned_sequences_.clear();
  for (const Owned& sequence : running_) sequence->awaited = 0;
  RelieveStarved();
  Admit();
  spare_logits_ = options_.max_num_seqs - running();
  int64_t budget = options_.max_num_batched_tokens;
  PlanDecodes(budget);
  plan_.decodes = static_cast<int64_t>(plan_.steps.size());
  plan_.paced = Paces();
  PlanPrompts(plan_.paced ? std::min(budget, prompt_limit_) : budget);
  // The first sequence in the order fits an empty cache, so work never stands still.
  SC_CHECK(!plan_.steps.empty() || (running_.empty() && waiting_.empty()) || withheld_ > 0);
  planned_ = !plan_.steps.empty();
  return plan_;
}

// The earliest position that stands for the next multiple of snapshot_every, `position` included.
int64_t Scheduler::Earliest(int64_t position) const {
  const int64_t every = options_.snapshot_every;
  return (position + every - 1) / every * every - every / kEarly;
}

// Where the next chunk must end at the latest. The prompt's last boundaries need no stop: the step
// that ends it leaves what snapshots there need.
int64_t Scheduler::NextStop(const Sequence& sequence) const {
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  if (cache_.snapshots().pages() == 0) return tokens;
  const int64_t every = options_.snapshot_every;
  int64_t stop = (sequence.computed / every + 1) * every;
  if (sequence.kept >= Earliest(stop)) stop += every;
  for (const int64_t branch : sequence.branches) {
    if (branch > sequence.computed) stop = std::min(stop, branch);
  }
  return stop < LastBoundary(tokens) ? stop : tokens;
}

// Whether other prompts are likely to start there.
bool Scheduler::IsStart(const Sequence& sequence, int64_t position) const {
  return position == LastBoundary(sequence.prompt_len) ||
         std::find(sequence.branches.begin(), sequence.branches.end(), position) !=
             sequence.branches.end();
}

// The most tokens that one step can bring it.
int64_t Scheduler::Reach(const Sequence& sequence) const {
  int64_t reach = NextStop(sequence) - sequence.computed;
  if (sequence.scoring()) {
    reach = std::min(reach,
                     std::max<int64_t>(0, sequence.scored - sequence.computed) + 1 + spare_logits_);
  }
  return sequence.background ? std::min<int64_t>(reach, kPageTokens) : reach;
}

bool Scheduler::Extend(Sequence& sequence, int64_t tokens) {
  const int64_t more = PagesOf(tokens) - static_cast<int64_t>(sequence.pages.compressed.size());
  return (more <= 0 || more <= available()) && cache_.Extend(tokens, sequence.pages);
}

bool Scheduler::Paces() const {
  return plan_.decodes > 0 &&
         std::none_of(running_.begin(), running_.end(), [](const Owned& sequence) {
           return sequence->remaining() > 1 && sequence->computed < sequence->paced_from;
         });
}

void Scheduler::PlanDecodes(int64_t& budget) {
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (sequence.remaining() == 1) {
      bool extended = Extend(sequence, sequence.computed + 1);
      while (!extended && PreemptFor(sequence)) {
        extended = Extend(sequence, sequence.computed + 1);
      }
      if (!extended) {
        Preempt(i);  // it is the last one itself
        continue;
      }
      Bring(sequence, 1);
      --budget;
    }
    ++i;
  }
}

void Scheduler::PlanPrompts(int64_t budget) {
  prompts_.clear();
  for (const Owned& sequence : running_) {
    if (sequence->remaining() > 1) prompts_.push_back(sequence.get());
  }
  if (prompts_.empty() || budget <= 0) return;

  Sequence& oldest = *prompts_.front();
  int64_t oldest_tokens = std::min(Reach(oldest), (budget + 1) / 2);
  budget -= oldest_tokens;
  // What is left until it, or one that waits for it, can go on.
  const auto left = [](const Sequence& sequence) {
    const int64_t awaited = sequence.awaited - sequence.computed;
    return awaited > 0 ? std::min(awaited, sequence.remaining()) : sequence.remaining();
  };
  // Ties by arrival, so that the order is total (std::stable_sort would allocate).
  std::sort(prompts_.begin() + 1, prompts_.end(), [&](const Sequence* a, const Sequence* b) {
    return left(*a) != left(*b) ? left(*a) < left(*b) : a->arrival < b->arrival;
  });
  int64_t others = 0;
  for (size_t i = 1; i < prompts_.size(); ++i) {
    others += Reach(*prompts_[i]);
    if (others >= budget) break;
  }
  oldest_tokens += std::min(Reach(oldest) - oldest_tokens, std::max<int64_t>(0, budget - others));
  BringChunk(oldest, oldest_tokens);
  budget = std::min(budget, others);
  for (size_t i = 1; i < prompts_.size() && budget > 0; ++i) {
    // One that comes later in the order may have been preempted for this one's pages.
    if (prompts_[i]->pages.slot < 0) continue;
    const int64_t tokens = std::min(Reach(*prompts_[i]), budget);
    BringChunk(*prompts_[i], tokens);
    budget -= tokens;
  }
}

void Scheduler::BringChunk(Sequence& sequence, int64_t tokens) {
  while (!Extend(sequence, sequence.computed + tokens)) {
    if (PreemptFor(sequence)) continue;
    const int64_t pages =
        static_cast<int64_t>(sequence.pages.compressed.size()) + std::max<int64_t>(0, available());
    tokens = pages * kPageTokens - sequence.computed;  // what there is room for
    if (tokens > 0) continue;
    sequence.starved = true;
    return;
  }
  Bring(sequence, tokens);
}

void Scheduler::Bring(Sequence& sequence, int64_t tokens) {
  SC_CHECK(tokens >= 1 && tokens <= sequence.remaining());
  if (!sequence.begun) CountMatch(sequence);
  sequence.begun = true;
  SequenceStep step;
  step.sequence = &sequence;
  step.first_position = sequence.computed;
  step.ids = std::span<const int32_t>(sequence.tokens)
                 .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens));
  step.logits = tokens == sequence.remaining() ? 1 : 0;
  if (sequence.scoring()) {
    const int64_t end = std::min(sequence.computed + tokens, sequence.prompt_len - 1);
    step.prompt_logits = std::max<int64_t>(0, end - std::max(sequence.computed, sequence.scored));
    step.logits += step.prompt_logits;
    spare_logits_ -= std::max<int64_t>(0, step.logits - 1);
  }
  plan_.steps.push_back(step);
  plan_.tokens += tokens;
  plan_.logits += step.logits;
  planned_sequences_.push_back(&sequence);
  sequence.planned = true;
}

std::span<const StepOutcome> Scheduler::Commit(std::span<const SampledTokens> sampled) {
  SC_CHECK(planned_ && sampled.size() == plan_.steps.size());
  outcomes_.clear();
  copies_.clear();
  for (size_t i = 0; i < sampled.size(); ++i) {
    CommitOne(*planned_sequences_[i], plan_.steps[i], sampled[i]);
  }
  RemoveFinished();
  return outcomes_;
}

std::span<const StepOutcome> Scheduler::Fail() {
  SC_CHECK(planned_);
  outcomes_.clear();
  copies_.clear();
  const SampledTokens failed{{}, true};
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    CommitOne(*planned_sequences_[i], plan_.steps[i], failed);
  }
  RemoveFinished();
  return outcomes_;
}

void Scheduler::CommitOne(Sequence& sequence, const SequenceStep& step,
                          const SampledTokens& sampled) {
  sequence.planned = false;
  StepOutcome outcome;
  outcome.id = sequence.id;
  outcome.cached = sequence.cached;
  if (sampled.failed) {
    sequence.failed = true;
    outcome.finish = Finish::kError;
    outcomes_.push_back(outcome);
    return;
  }
  const int64_t rows = static_cast<int64_t>(sampled.ids.size());
  const int64_t wanted = step.logits - step.prompt_logits;
  SC_CHECK(rows <= wanted && (rows > 0 || sampled.ended) == (wanted > 0) &&
           !(rows > 0 && sampled.ended));
  // Of the tokens whose logits were wanted, as many are confirmed as were sampled; the first is in
  // any case.
  const int64_t confirmed = sampled.ended ? 1 : rows;
  const int64_t computed =
      step.first_position + static_cast<int64_t>(step.ids.size()) - wanted + confirmed;
  counts_.recomputed_tokens += static_cast<uint64_t>(
      std::max<int64_t>(0, std::min(computed, sequence.furthest) - sequence.computed));
  outcome.prompt_done =
      std::max<int64_t>(0, std::min(computed, sequence.prompt_len) - sequence.furthest);
  if (sequence.background) {
    counts_.background_tokens += static_cast<uint64_t>(outcome.prompt_done);
  }
  if (computed >= sequence.prompt_len && sequence.furthest < sequence.prompt_len &&
      sequence.turn != 0) {
    TurnOf(sequence.turn) = {sequence.turn,
                             static_cast<int32_t>(LastBoundary(sequence.prompt_len) / kPageTokens)};
  }
  sequence.scored += step.prompt_logits;
  outcome.prompt_logits = step.prompt_logits;
  sequence.computed = computed;
  sequence.furthest = std::max(sequence.furthest, computed);
  if (sampled.ended) outcome.finish = Finish::kStop;
  for (const int32_t id : sampled.ids) {
    sequence.tokens.push_back(id);
    ++outcome.kept;
    if (std::find(sequence.stop_ids.begin(), sequence.stop_ids.end(), id) !=
        sequence.stop_ids.end()) {
      outcome.finish = Finish::kStop;
    } else if (sequence.generated() >= sequence.max_tokens) {
      outcome.finish = Finish::kLength;
    }
    if (outcome.finish != Finish::kNone) break;
  }
  KeepPrefix(sequence, step.first_position);
  if (outcome.finish == Finish::kNone) cache_.Trim(sequence.computed, sequence.pages);
  outcomes_.push_back(outcome);
}

// What is computed becomes known. The newest boundary that the step reached becomes a place to
// start from, and so does the one before it if that is wanted: a prompt may end where a block does.
void Scheduler::KeepPrefix(Sequence& sequence, int64_t from) {
  // Accepted tokens behind a stop were computed, but are not part of it.
  const int64_t end = std::min(sequence.computed, static_cast<int64_t>(sequence.tokens.size()));
  ExtendHashes(sequence.salt, sequence.tokens, sequence.hashes);
  cache_.Commit(sequence.chain(), end, sequence.pages);
  const auto take = [&](int64_t position, bool wanted) {
    if (const auto copy = cache_.TakeSnapshot(position, wanted, sequence.pages)) {
      copies_.push_back(*copy);
    }
    if (wanted) sequence.kept = position;
  };
  const int64_t newest = end / kPageTokens * kPageTokens, before = newest - kPageTokens;
  if (before > from && IsStart(sequence, before)) take(before, true);
  if (newest <= from) return;
  const int64_t early = Earliest(newest);
  take(newest, IsStart(sequence, newest) || (newest >= early && sequence.kept < early));
}

void Scheduler::RemoveFinished() {
  for (size_t i = 0; i < outcomes_.size(); ++i) {
    Sequence& sequence = *planned_sequences_[i];
    if (outcomes_[i].finish != Finish::kNone) cache_.Close(sequence.pages, !sequence.failed);
  }
  // A running sequence always has a slot; a closed one has none.
  std::erase_if(running_, [](const auto& sequence) { return sequence->pages.slot < 0; });
  planned_sequences_.clear();
  plan_.steps.clear();
  planned_ = false;
}

Status Scheduler::CheckBooks() const {
  std::vector<const SequencePages*> open;
  for (const Owned& sequence : running_) open.push_back(&sequence->pages);
  return cache_.CheckBooks(open);
}

}  // namespace seacliff
