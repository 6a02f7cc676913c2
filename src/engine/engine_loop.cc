// The engine thread and its mailbox; see engine_loop.h.
#include "engine/engine_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/random.h"
#include "base/stacks.h"

namespace seacliff {
namespace {

SchedulerOptions SchedulerOptionsOf(const EngineLoopOptions& options, const ModelConfig& config) {
  SchedulerOptions scheduler;
  scheduler.max_num_seqs = options.max_num_seqs;
  scheduler.max_num_batched_tokens = options.max_num_batched_tokens;
  scheduler.max_waiting = options.max_waiting;
  scheduler.unpaced_tokens = options.unpaced_tokens;
  scheduler.window = config.window;
  scheduler.cache = options.cache;
  return scheduler;
}

void LogLostPrefix(const LostPrefix& lost) {
  constexpr std::array<const char*, kCacheMisses> kReasons = {
      "they were never cached", "they were evicted", "no snapshot of them is left",
      "they are cached under another cache_salt", "this turn's prompt has other tokens there"};
  SC_LOG_INFO(
      "request {}: its conversation lost its prefix: the last turn left {} tokens of it, {} are "
      "cached: {}",
      lost.id, lost.expected, lost.found, kReasons[static_cast<size_t>(lost.reason)]);
}

bool NeedsCounts(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 ||
         sampling.frequency_penalty != 0;
}

// Steps of the same number run the same kernels, nearly.
size_t SizeOf(const StepPlan& plan) {
  const auto bits = [](auto count) {
    return std::min<size_t>(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(count))), 31);
  };
  return 32 * bits(plan.tokens) + bits(plan.steps.size());
}

}  // namespace

EngineLoop::EngineLoop(std::unique_ptr<Model> model, TokenMasks masks,
                       const EngineLoopOptions& options)
    : options_(options),
      vocab_size_(static_cast<int32_t>(model->config().vocab_size)),
      model_(std::move(model)),
      masks_(std::move(masks)),
      scheduler_(SchedulerOptionsOf(options, model_->config())),
      arrays_(options.max_num_batched_tokens, options.max_num_seqs, options.max_model_len),
      pacer_(options.max_num_batched_tokens) {
  const size_t seqs = static_cast<size_t>(options.max_num_seqs);
  rows_.resize(seqs);
  sample_rows_.resize(seqs);
  row_ids_.resize(seqs);
  row_begin_.reserve(seqs + 1);
  sampled_.reserve(seqs);
  published_.reserve(seqs);
  stats_.pages = scheduler_.cache().compressed_pool().pages();
  thread_ = std::thread([this] { Run(); });
}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  mail_.notify_one();
  thread_.join();
}

RequestId EngineLoop::NextId() { return ++last_id_; }

Status EngineLoop::Submit(Request request, EventSink sink) {
  SC_RETURN_IF_ERROR(ValidateRequest({options_.max_model_len, vocab_size_}, request));

  Arrival arrival;
  arrival.live = std::make_unique<Live>();
  Live& live = *arrival.live;
  live.sink = std::move(sink);
  if (!request.ignore_eos) live.stop_ids = std::move(request.stop_token_ids);
  live.has_counts = NeedsCounts(request.sampling);
  if (live.has_counts) {
    live.counts = TokenCounts(request.prompt, std::min(request.max_tokens, vocab_size_));
  }
  live.sampling = std::move(request.sampling);
  live.prompt_logprobs = request.prompt_logprobs;
  live.rules = std::move(request.rules);
  arrival.sequence.id = request.id;
  arrival.sequence.tokens = std::move(request.prompt);
  arrival.sequence.max_tokens = request.max_tokens;
  arrival.sequence.stop_ids = live.stop_ids;
  arrival.sequence.priority = request.priority;
  arrival.sequence.salt = std::move(request.cache_salt);
  arrival.sequence.turn = request.turn;
  arrival.sequence.continues = request.continues;
  arrival.sequence.background = request.background;
  arrival.sequence.scores = request.prompt_logprobs >= 0;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return Internal("the engine is shutting down");
    SC_RETURN_IF_ERROR(lost_);
    const int64_t waiting = stats_.waiting + static_cast<int64_t>(arrivals_.size());
    if (waiting >= options_.max_waiting) {
      return Exhausted(fmt::format("the engine is busy: {} requests are waiting", waiting));
    }
    if (!ids_.insert(request.id).second) {
      return InvalidArgument(fmt::format("request id {} is in use", request.id));
    }
    live.seed = live.sampling.seed.value_or(RandomBits(options_.seed, submitted_++, Draw::kSeed));
    arrivals_.push_back(std::move(arrival));
  }
  mail_.notify_one();
  return OkStatus();
}

void EngineLoop::Cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    if (!ids_.contains(id)) return;
    cancels_.push_back(id);
  }
  mail_.notify_one();
}

EngineStats EngineLoop::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting += static_cast<int32_t>(arrivals_.size());
  return stats;
}

std::string EngineLoop::Describe() const {
  constexpr size_t kMostParts = 64;
  const std::lock_guard lock(mutex_);
  std::string out = fmt::format(
      "the engine's thread: {}; {} steps have ended; {} requests run, {} wait, {} are not taken in "
      "yet\n",
      activity_.load(std::memory_order_relaxed), stats_.steps, stats_.running, stats_.waiting,
      arrivals_.size());
  if (published_.empty()) return out + "no step is under way\n";
  out += fmt::format("the step under way has {} sequences:\n", published_.size());
  for (size_t i = 0; i < published_.size() && i < kMostParts; ++i) {
    const PlannedPart& part = published_[i];
    fmt::format_to(std::back_inserter(out), "  request {}: {} tokens from position {}\n", part.id,
                   part.tokens, part.first_position);
  }
  if (published_.size() > kMostParts) out += "  ...\n";
  return out;
}

void EngineLoop::Run() {
  NameThread("engine");
  while (TakeMail()) {
    Step();
    if (scheduler_.running() + scheduler_.waiting() == 0) CheckBooks();
  }
  EndAll(Finish::kCancelled, OkStatus());
}

bool EngineLoop::TakeMail() {
  const bool busy = scheduler_.running() + scheduler_.waiting() > 0;
  if (!busy) Deliver();
  {
    std::unique_lock lock(mutex_);
    if (!busy) {
      SetActivity("waiting for requests");
      follows_ = false;
      published_.clear();
      stats_.first_of_size = false;
    }
    constexpr std::chrono::seconds kLook(1);  // at ranks that may be gone meanwhile
    const auto mail = [&] { return stop_ || busy || !arrivals_.empty() || !cancels_.empty(); };
    while (!mail_.wait_for(lock, kLook, mail)) {
      const Status ranks = model_->CheckRanks();
      if (ranks.ok() || !lost_.ok()) continue;
      lock.unlock();
      Lose(ranks);
      lock.lock();
    }
    if (stop_) return false;
    if (arrivals_.empty() && cancels_.empty()) return true;
    std::swap(arrivals_, taken_arrivals_);
    std::swap(cancels_, taken_cancels_);
    stats_.waiting += static_cast<int32_t>(taken_arrivals_.size());
  }
  SetActivity("taking requests and cancels");
  QueueTaken();
  if (!taken_cancels_.empty()) Deliver();  // a cancelled request has no events after its last
  for (const RequestId id : taken_cancels_) {
    if (!scheduler_.Cancel(id)) continue;  // it ended meanwhile
    Publish({});
    End(id, Finish::kCancelled, OkStatus());
  }
  taken_cancels_.clear();
  return true;
}

void EngineLoop::TakeArrivals() {
  {
    const std::lock_guard lock(mutex_);
    if (arrivals_.empty()) return;
    std::swap(arrivals_, taken_arrivals_);
    stats_.waiting += static_cast<int32_t>(taken_arrivals_.size());
  }
  QueueTaken();
}

void EngineLoop::QueueTaken() {
  for (Arrival& arrival : taken_arrivals_) {
    const RequestId id = arrival.sequence.id;
    live_[id] = std::move(arrival.live);
    const Status status = scheduler_.Add(std::move(arrival.sequence));
    if (!status.ok()) End(id, Finish::kError, status);
  }
  taken_arrivals_.clear();
}

void EngineLoop::Step() {
  SetActivity("planning a step");
  const StepPlan& plan = scheduler_.Plan();
  if (plan.steps.empty()) {
    Deliver();
    return Publish({});
  }
  const Clock::time_point start = Clock::now();
  PublishPlan(plan);
  const bool launches = model_->runs_ahead();
  // A device has no room for all launches of a step with prompts: they wait for it themselves.
  const bool ahead = launches && plan.decodes == plan.tokens;
  if (!ahead) WorkAside(plan);
  const Batch batch = arrays_.Fill(plan);
  if (follows_) host_seconds_ += std::chrono::duration<double>(Clock::now() - sampled_at_).count();
  SetActivity(launches ? "launching a step" : "running a step");
  model_->CopyRows(plan.copies);
  Status status = model_->Forward(batch, nullptr);
  if (ahead) WorkAside(plan);
  if (status.ok()) status = FillRows(plan);
  if (status.ok()) {
    SetActivity(launches ? "waiting for the device" : "sampling");
    status = SampleRows(plan);
  }
  // A rank that is gone is why, whatever came of it here.
  if (const Status ranks = model_->CheckRanks(); !ranks.ok()) status = ranks;
  SetActivity("ending a step");
  follows_ = status.ok();
  decode_seconds_ = 0;
  if (!status.ok()) {
    SC_LOG_ERROR("step of {} sequences, {} tokens failed: {}", plan.steps.size(), plan.tokens,
                 status.message());
    row_begin_.assign(plan.steps.size() + 1, 0);  // no rows
    undelivered_ = scheduler_.Fail();
    Deliver(status);
    if (status.code() == Code::kUnavailable) Lose(status);
    return;
  }
  sampled_at_ = Clock::now();
  known_sizes_.set(SizeOf(plan));
  const double seconds = std::chrono::duration<double>(sampled_at_ - start).count();
  pacer_.Record(plan.decodes, plan.tokens - plan.decodes, seconds, plan.paced);
  decode_seconds_ = plan.decodes == plan.tokens ? seconds : 0;
  const auto requests = std::min<int64_t>(
      scheduler_.foreground_running() + scheduler_.foreground_waiting(), options_.max_num_seqs);
  scheduler_.set_prompt_limit(
      pacer_.prompt_limit(requests - plan.decodes, std::max<int64_t>(plan.decodes, 1)));
  undelivered_ = scheduler_.Commit(sampled_);
  model_->CopyRows(scheduler_.copies());
}

void EngineLoop::WorkAside(const StepPlan& plan) {
  SetActivity("sending events");
  Deliver();
  Publish({});  // a step may take long: who runs and who waits is known now
  for (const LostPrefix& lost : plan.lost) LogLostPrefix(lost);
  TakeArrivals();
}

void EngineLoop::CheckBooks() {
  constexpr std::chrono::minutes kEvery(1);
  const Clock::time_point now = Clock::now();
  if (now - checked_books_ < kEvery) return;
  checked_books_ = now;
  const Status books = scheduler_.CheckBooks();
  if (!books.ok()) SC_LOG_ERROR("the cache's books are wrong: {}", books.message());
}

Status EngineLoop::FillRows(const StepPlan& plan) {
  row_begin_.clear();
  masks_.Clear();
  size_t rows = 0;
  for (const SequenceStep& step : plan.steps) {
    row_begin_.push_back(static_cast<int64_t>(rows));
    if (step.logits == 0) continue;
    Live* live = live_.at(step.sequence->id).get();
    const int64_t end = step.first_position + static_cast<int64_t>(step.ids.size());
    for (int64_t i = 0; i < step.prompt_logits; ++i, ++rows) {
      const auto next = static_cast<size_t>(end - step.logits + i + 1);
      FillPromptRow(rows, live, step.sequence->tokens[next]);
    }
    const int64_t wanted = step.logits - step.prompt_logits;
    for (int64_t i = 0; i < wanted; ++i, ++rows) {
      FillRow(rows, live, step.sequence->generated() + i);
    }
    if (live->rules == nullptr || wanted == 0) continue;
    SC_CHECK(wanted == 1);  // drafted tokens are not known to rules
    AskRules(rows - 1, *step.sequence);
  }
  row_begin_.push_back(static_cast<int64_t>(rows));
  return masks_.Upload();
}

Status EngineLoop::SampleRows(const StepPlan& plan) {
  Context& k = model_->context();
  Sample(k, {{sample_rows_.data(), static_cast<size_t>(row_begin_.back())}});
  SC_RETURN_IF_ERROR(k.TakeError());

  sampled_.clear();
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    SampledTokens sampled;
    for (auto row = static_cast<size_t>(row_begin_[i]);
         row < static_cast<size_t>(row_begin_[i + 1]); ++row) {
      row_ids_[row] = rows_[row].token.id;
      Status& error = sample_rows_[row].error;
      if (rows_[row].ended || !rows_[row].error.ok()) error = rows_[row].error;
      sampled.failed |= !error.ok();
      sampled.ended |= rows_[row].ended;
    }
    if (!sampled.failed && !sampled.ended) {
      sampled.ids = {row_ids_.data() + row_begin_[i] + plan.steps[i].prompt_logits,
                     row_ids_.data() + row_begin_[i + 1]};
    }
    sampled_.push_back(sampled);
  }
  return OkStatus();
}

SampleRow& EngineLoop::NewRow(size_t index, Live* live) {
  rows_[index].live = live;
  rows_[index].ended = false;
  rows_[index].error = OkStatus();
  SampleRow& row = sample_rows_[index];
  row = {};
  row.logits = {model_->logits()[static_cast<int64_t>(index)].data,
                static_cast<size_t>(vocab_size_)};
  row.scratch = &rows_[index].scratch;
  row.token = &rows_[index].token;
  return row;
}

void EngineLoop::FillPromptRow(size_t index, Live* live, int32_t id) {
  SampleRow& row = NewRow(index, live);
  // No logit outweighs it, and logprobs do not look at it.
  rows_[index].given = {id, std::numeric_limits<float>::max() / 2};
  row.temperature = 0;
  row.bias = {&rows_[index].given, 1};
  row.top_logprobs = live->prompt_logprobs;
}

void EngineLoop::FillRow(size_t index, Live* live, int64_t generated) {
  SampleRow& row = NewRow(index, live);
  const SamplingParams& sampling = live->sampling;
  row.temperature = sampling.temperature;
  row.top_k = sampling.top_k;
  row.top_p = sampling.top_p;
  row.min_p = sampling.min_p;
  row.repetition_penalty = sampling.repetition_penalty;
  row.presence_penalty = sampling.presence_penalty;
  row.frequency_penalty = sampling.frequency_penalty;
  row.counts = live->counts.counts();
  row.bias = sampling.logit_bias;
  if (generated < sampling.min_tokens) row.banned = live->stop_ids;
  row.seed = live->seed;
  row.index = static_cast<uint64_t>(generated);
  row.top_logprobs = sampling.top_logprobs;
}

void EngineLoop::AskRules(size_t index, const Sequence& sequence) {
  SetActivity("asking the rules of requests");
  const Clock::time_point start = Clock::now();
  Row& row = rows_[index];
  SampleRow& sampling = sample_rows_[index];
  TokenRules& rules = *row.live->rules;
  const auto generated =
      std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.prompt_len));
  for (size_t& told = row.live->told; told < generated.size(); ++told) {
    rules.Accept(generated[told]);
  }
  row.error = rules.error();
  row.ended = row.error.ok() && rules.done();
  if (row.error.ok() && !row.ended) {
    const std::span<uint32_t> mask = masks_.Next();
    if (rules.Mask(mask)) {
      sampling.allowed = masks_.Take();
      // Rules win over min_tokens.
      if (!sampling.banned.empty() && !AllowsOthers(mask, vocab_size_, sampling.banned)) {
        sampling.banned = {};
      }
    }
    row.error = rules.error();
  }
  rules_seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
}

void EngineLoop::Deliver(const Status& error) {
  if (undelivered_.empty()) return;
  const std::span<const StepOutcome> outcomes = std::exchange(undelivered_, {});
  Publish(outcomes);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const StepOutcome& outcome = outcomes[i];
    event_.id = outcome.id;
    event_.finish = outcome.finish;
    event_.error = error;
    event_.cached_tokens = static_cast<int32_t>(outcome.cached);
    event_.prompt.clear();
    event_.tokens.clear();
    for (int64_t row = row_begin_[i]; row < row_begin_[i + 1]; ++row) {
      Row& sampled = rows_[static_cast<size_t>(row)];
      const Status& row_error = sample_rows_[static_cast<size_t>(row)].error;
      if (!row_error.ok()) event_.error = row_error;
      const int64_t number = row - row_begin_[i] - outcome.prompt_logits;
      if (number >= outcome.kept) continue;
      if (number < 0) {
        event_.prompt.push_back(std::move(sampled.token));
        continue;
      }
      if (sampled.live->has_counts) sampled.live->counts.Add(sampled.token.id);
      event_.tokens.push_back(std::move(sampled.token));
    }
    if (!event_.prompt.empty() || !event_.tokens.empty() || event_.finish != Finish::kNone) Send();
  }
}

void EngineLoop::Publish(std::span<const StepOutcome> outcomes) {
  const std::lock_guard lock(mutex_);
  if (!outcomes.empty()) {
    ++stats_.steps;
    stats_.host_seconds = host_seconds_;
    stats_.rules_seconds = rules_seconds_;
    if (decode_seconds_ > 0) stats_.decode_steps.Add(decode_seconds_);
  }
  for (const StepOutcome& outcome : outcomes) {
    stats_.prompt_tokens += static_cast<uint64_t>(outcome.prompt_done);
    stats_.generated_tokens += static_cast<uint64_t>(outcome.kept);
  }
  stats_.running = static_cast<int32_t>(scheduler_.foreground_running());
  stats_.waiting = static_cast<int32_t>(scheduler_.foreground_waiting());
  // The compressed pages are what grows with context; the window's are a fixed share a sequence.
  const CachePlan& cache = scheduler_.cache();
  const int32_t pages = cache.compressed_pool().pages();
  stats_.cache_usage = pages == 0 ? 0 : 1 - static_cast<double>(cache.available()) / pages;
  stats_.free_pages = cache.compressed_pool().free();
  stats_.cached_pages = cache.index().idle().size();
  stats_.snapshots = cache.snapshots().used();
  stats_.evicted_pages = cache.evicted_blocks();
  stats_.dropped_snapshots = cache.dropped_snapshots();
  const SchedulerCounts& counts = scheduler_.counts();
  stats_.queried_tokens = counts.queried_tokens;
  stats_.hit_tokens = counts.hit_tokens;
  stats_.missed_tokens = counts.missed_tokens;
  stats_.lost_prefixes = counts.lost_prefixes;
  stats_.preemptions = counts.preemptions;
  stats_.recomputed_tokens = counts.recomputed_tokens;
  stats_.background_tokens = counts.background_tokens;
}

void EngineLoop::PublishPlan(const StepPlan& plan) {
  const std::lock_guard lock(mutex_);
  published_.clear();
  for (const SequenceStep& step : plan.steps) {
    published_.push_back(
        {step.sequence->id, step.first_position, static_cast<int64_t>(step.ids.size())});
  }
  stats_.first_of_size = !known_sizes_[SizeOf(plan)];
  stats_.running = static_cast<int32_t>(scheduler_.running());
  stats_.waiting = static_cast<int32_t>(scheduler_.waiting());
}

void EngineLoop::Send() {
  if (event_.finish == Finish::kNone) {
    live_.at(event_.id)->sink(event_);
    return;
  }
  // Forgotten first, so that the sink may submit again under the same id.
  const auto place = live_.find(event_.id);
  const std::unique_ptr<Live> live = std::move(place->second);
  live_.erase(place);
  {
    const std::lock_guard lock(mutex_);
    ids_.erase(event_.id);
    std::erase(cancels_, event_.id);
  }
  live->sink(event_);
}

void EngineLoop::End(RequestId id, Finish finish, const Status& error) {
  event_.id = id;
  event_.finish = finish;
  event_.error = error;
  event_.prompt.clear();
  event_.tokens.clear();
  Send();
}

void EngineLoop::EndAll(Finish finish, const Status& error) {
  Deliver();
  {
    const std::lock_guard lock(mutex_);
    std::swap(arrivals_, taken_arrivals_);
  }
  for (Arrival& arrival : taken_arrivals_) live_[arrival.sequence.id] = std::move(arrival.live);
  taken_arrivals_.clear();
  for (const auto& [id, live] : live_) scheduler_.Cancel(id);
  Publish({});
  while (!live_.empty()) End(live_.begin()->first, finish, error);
}

void EngineLoop::Lose(const Status& error) {
  {
    const std::lock_guard lock(mutex_);
    lost_ = error;
  }
  EndAll(Finish::kError, error);
  if (options_.on_lost) options_.on_lost(error);
}

}  // namespace seacliff
