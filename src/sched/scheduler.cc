// Admission, planning and committing of steps; see scheduler.h for the rules.
#include "sched/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace seacliff {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), cache_(options.cache, options.window, options.max_num_batched_tokens) {
  SC_CHECK(options.max_num_seqs >= 1 && options.max_num_batched_tokens >= options.max_num_seqs);
  const size_t seqs = static_cast<size_t>(options.max_num_seqs);
  running_.reserve(seqs);
  plan_.steps.reserve(seqs);
  prompts_.reserve(seqs);
  planned_sequences_.reserve(seqs);
  outcomes_.reserve(seqs);
}

Status Scheduler::Add(Sequence sequence) {
  SC_CHECK(!sequence.tokens.empty() && sequence.max_tokens >= 1);
  if (waiting() >= options_.max_waiting) {
    return Exhausted(fmt::format("{} requests are waiting already", waiting()));
  }
  sequence.prompt_len = static_cast<int64_t>(sequence.tokens.size());
  sequence.computed = 0;
  if (!cache_.FitsAlone(cache_.NeedOf(sequence.longest()))) {
    return InvalidArgument(
        fmt::format("the cache cannot hold a sequence of {} tokens", sequence.longest()));
  }
  waiting_.push_back(std::make_unique<Sequence>(std::move(sequence)));
  return OkStatus();
}

bool Scheduler::Cancel(uint64_t id) {
  SC_CHECK(!planned_);
  const auto has_id = [id](const std::unique_ptr<Sequence>& sequence) {
    return sequence->id == id;
  };
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
  plan_.steps.clear();
  plan_.tokens = 0;
  plan_.logits = 0;
  planned_sequences_.clear();
  Admit();
  int64_t budget = options_.max_num_batched_tokens;
  PlanDecodes(budget);
  PlanPrompts(budget);
  // The oldest waiting sequence fits an empty cache, so work never stands still.
  SC_CHECK(!plan_.steps.empty() || (running_.empty() && waiting_.empty()));
  planned_ = !plan_.steps.empty();
  return plan_;
}

void Scheduler::Admit() {
  while (!waiting_.empty() && running() < options_.max_num_seqs) {
    Sequence& oldest = *waiting_.front();
    const PageNeed need = cache_.NeedOf(oldest.longest());
    if (!cache_.Fits(need)) return;
    oldest.pages = cache_.Open(need);
    oldest.tokens.reserve(static_cast<size_t>(oldest.longest()));
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void Scheduler::PlanDecodes(int64_t& budget) {
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->remaining() != 1) continue;
    Bring(*sequence, 1);
    --budget;
  }
}

void Scheduler::PlanPrompts(int64_t budget) {
  prompts_.clear();
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->remaining() > 1) prompts_.push_back(sequence.get());
  }
  if (prompts_.empty() || budget == 0) return;

  Sequence& oldest = *prompts_.front();
  int64_t oldest_tokens = std::min(oldest.remaining(), (budget + 1) / 2);
  budget -= oldest_tokens;
  // Ties by id, so that the order is total (std::stable_sort would allocate).
  std::sort(prompts_.begin() + 1, prompts_.end(), [](const Sequence* a, const Sequence* b) {
    if (a->remaining() != b->remaining()) return a->remaining() < b->remaining();
    return a->id < b->id;
  });
  int64_t others = 0;
  for (size_t i = 1; i < prompts_.size(); ++i) {
    others += prompts_[i]->remaining();
    if (others >= budget) break;
  }
  oldest_tokens +=
      std::min(oldest.remaining() - oldest_tokens, std::max<int64_t>(0, budget - others));
  Bring(oldest, oldest_tokens);
  budget = std::min(budget, others);
  for (size_t i = 1; i < prompts_.size() && budget > 0; ++i) {
    const int64_t tokens = std::min(prompts_[i]->remaining(), budget);
    Bring(*prompts_[i], tokens);
    budget -= tokens;
  }
}

void Scheduler::Bring(Sequence& sequence, int64_t tokens) {
  SC_CHECK(tokens >= 1 && tokens <= sequence.remaining());
  cache_.Extend(sequence.computed + tokens, sequence.pages);
  SequenceStep step;
  step.sequence = &sequence;
  step.first_position = sequence.computed;
  step.ids = std::span<const int32_t>(sequence.tokens)
                 .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens));
  step.logits = tokens == sequence.remaining() ? 1 : 0;
  plan_.steps.push_back(step);
  plan_.tokens += tokens;
  plan_.logits += step.logits;
  planned_sequences_.push_back(&sequence);
}

std::span<const StepOutcome> Scheduler::Commit(std::span<const SampledTokens> sampled) {
  SC_CHECK(planned_ && sampled.size() == plan_.steps.size());
  outcomes_.clear();
  for (size_t i = 0; i < sampled.size(); ++i) {
    CommitOne(*planned_sequences_[i], plan_.steps[i], sampled[i]);
  }
  RemoveFinished();
  planned_ = false;
  return outcomes_;
}

std::span<const StepOutcome> Scheduler::Fail() {
  SC_CHECK(planned_);
  outcomes_.clear();
  const SampledTokens failed{{}, true};
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    CommitOne(*planned_sequences_[i], plan_.steps[i], failed);
  }
  RemoveFinished();
  planned_ = false;
  return outcomes_;
}

void Scheduler::CommitOne(Sequence& sequence, const SequenceStep& step,
                          const SampledTokens& sampled) {
  StepOutcome outcome;
  outcome.id = sequence.id;
  if (sampled.failed) {
    outcome.finish = Finish::kError;
    outcomes_.push_back(outcome);
    return;
  }
  const int64_t rows = static_cast<int64_t>(sampled.ids.size());
  SC_CHECK(rows <= step.logits && (rows > 0) == (step.logits > 0));
  // Of the tokens whose logits were wanted, as many are confirmed as were sampled.
  const int64_t computed =
      step.first_position + static_cast<int64_t>(step.ids.size()) - step.logits + rows;
  outcome.prompt_done = std::max<int64_t>(0, std::min(computed, sequence.prompt_len) -
                                                 std::min(sequence.computed, sequence.prompt_len));
  sequence.computed = computed;
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
  if (outcome.finish == Finish::kNone) cache_.Trim(sequence.computed, sequence.pages);
  outcomes_.push_back(outcome);
}

void Scheduler::RemoveFinished() {
  for (size_t i = 0; i < outcomes_.size(); ++i) {
    if (outcomes_[i].finish != Finish::kNone) cache_.Close(planned_sequences_[i]->pages);
  }
  // A running sequence always has a slot; a closed one has none.
  std::erase_if(running_, [](const auto& sequence) { return sequence->pages.slot < 0; });
  planned_sequences_.clear();
  plan_.steps.clear();
}

void Scheduler::CheckBooks() const {
  std::vector<const SequencePages*> open;
  for (const std::unique_ptr<Sequence>& sequence : running_) open.push_back(&sequence->pages);
  cache_.CheckBooks(open);
}

}  // namespace seacliff
