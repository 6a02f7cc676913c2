// Prefill and decoding of random token ids, timed.
#include "tools/throughput.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "kernels/sample/op.h"

namespace seacliff {
namespace {

using Clock = std::chrono::steady_clock;

std::string PhaseName(const char* kind, int64_t tokens, int64_t depth) {
  return fmt::format("{}{}{}", kind, tokens, depth == 0 ? "" : fmt::format(" @ d{}", depth));
}

}  // namespace

double PhaseResult::median_seconds() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

Throughput::Throughput(Model& model, const ThroughputOptions& options)
    : model_(model),
      options_(options),
      runner_(model, options.num_prompts, options.max_len()),
      ids_(static_cast<size_t>(options.num_prompts)) {
  // What is decoded are random ids too and not those that were sampled, so that the choice of
  // experts varies as in text, whatever the weights are.
  std::mt19937_64 random(options.seed);
  const auto vocab = static_cast<uint64_t>(model.config().vocab_size);
  for (auto& ids : ids_) {
    ids.resize(static_cast<size_t>(options.max_len()));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % vocab);
  }
}

Result<std::vector<PhaseResult>> Throughput::Run() {
  const ThroughputOptions& o = options_;
  std::vector<PhaseResult> phases(2);
  phases[0].name = PhaseName("pp", o.input_len, o.depth);
  phases[0].depth = o.depth;
  phases[0].tokens = o.input_len * o.num_prompts;
  phases[1].name = PhaseName("tg", o.output_len, o.depth + o.input_len);
  phases[1].depth = o.depth + o.input_len;
  phases[1].tokens = o.output_len * o.num_prompts;

  for (int64_t i = 0; i < o.warmup; ++i) {
    SC_RETURN_IF_ERROR(RunOnce(i == 0 ? Purpose::kCount : Purpose::kWarmUp, phases));
  }
  for (int64_t i = 0; i < o.repeat; ++i) SC_RETURN_IF_ERROR(RunOnce(Purpose::kTime, phases));
  if (o.profile) SC_RETURN_IF_ERROR(RunOnce(Purpose::kProfile, phases));
  std::erase_if(phases, [](const PhaseResult& phase) { return phase.tokens == 0; });
  return phases;
}

Status Throughput::RunOnce(Purpose purpose, std::vector<PhaseResult>& phases) {
  const int64_t depth = options_.depth, prompt_end = depth + options_.input_len;
  for (int64_t s = 0; s < options_.num_prompts; ++s) runner_.Restart(s);
  SC_RETURN_IF_ERROR(Prefill(0, depth));
  SC_RETURN_IF_ERROR(Phase(purpose, phases[0], [&] { return Prefill(depth, prompt_end); }));
  return Phase(purpose, phases[1], [&] { return Decode(); });
}

template <typename F>
Status Throughput::Phase(Purpose purpose, PhaseResult& phase, F steps) {
  if (phase.tokens == 0) return OkStatus();
  Profile profile;
  const bool watch = purpose == Purpose::kCount || purpose == Purpose::kProfile;
  model_.context().set_profile(watch ? &profile : nullptr);
  steps_ = 0;
  const auto begin = Clock::now();
  const Status status = steps();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  model_.context().set_profile(nullptr);
  SC_RETURN_IF_ERROR(status);
  if (purpose == Purpose::kTime) phase.seconds.push_back(seconds);
  if (purpose == Purpose::kProfile) phase.profile = profile.Describe(seconds);
  if (purpose == Purpose::kCount) {
    phase.work = profile.total().work;
    phase.steps = steps_;
  }
  return OkStatus();
}

Status Throughput::Prefill(int64_t from, int64_t to) {
  std::vector<DirectRunner::Piece> pieces;
  std::vector<int32_t> rows;
  int64_t tokens = 0;
  const auto flush = [&]() -> Status {
    if (tokens == 0) return OkStatus();
    SC_RETURN_IF_ERROR(Step(pieces, rows));
    pieces.clear();
    rows.clear();
    tokens = 0;
    return OkStatus();
  };
  for (int64_t s = 0; s < options_.num_prompts; ++s) {
    const std::span<const int32_t> ids(ids_[static_cast<size_t>(s)]);
    for (int64_t at = from; at < to;) {
      const int64_t count = std::min(to - at, options_.max_num_batched_tokens - tokens);
      pieces.push_back({s, ids.subspan(static_cast<size_t>(at), static_cast<size_t>(count))});
      at += count;
      tokens += count;
      if (at == to) rows.push_back(static_cast<int32_t>(tokens - 1));
      if (tokens == options_.max_num_batched_tokens) SC_RETURN_IF_ERROR(flush());
    }
  }
  return flush();
}

Status Throughput::Decode() {
  std::vector<int32_t> rows;
  for (int64_t s = 0; s < options_.num_prompts; ++s) rows.push_back(static_cast<int32_t>(s));
  const int64_t begin = options_.depth + options_.input_len;
  for (int64_t at = begin; at < begin + options_.output_len; ++at) {
    std::vector<DirectRunner::Piece> pieces;
    for (int64_t s = 0; s < options_.num_prompts; ++s) {
      const std::span<const int32_t> ids(ids_[static_cast<size_t>(s)]);
      pieces.push_back({s, ids.subspan(static_cast<size_t>(at), 1)});
    }
    SC_RETURN_IF_ERROR(Step(pieces, rows));
  }
  return OkStatus();
}

Status Throughput::Step(const std::vector<DirectRunner::Piece>& pieces,
                        const std::vector<int32_t>& rows) {
  ++steps_;
  SC_RETURN_IF_ERROR(runner_.Step(pieces, rows));
  if (rows.empty()) return OkStatus();
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  std::vector<SampleScratch> scratch(rows.size());
  std::vector<Token> tokens(rows.size());
  std::vector<SampleRow> samples(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    samples[i].logits = {model_.logits()[static_cast<int64_t>(i)].data, vocab};
    samples[i].temperature = 0;
    samples[i].scratch = &scratch[i];
    samples[i].token = &tokens[i];
  }
  Sample(model_.context(), {samples});
  SC_RETURN_IF_ERROR(model_.context().TakeError());
  for (const SampleRow& sample : samples) SC_RETURN_IF_ERROR(sample.error);
  return OkStatus();
}

}  // namespace seacliff
