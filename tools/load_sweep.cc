// The sweep, its live line and its result lines.
#include "tools/load_sweep.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/file_map.h"
#include "base/random.h"

namespace seacliff {
namespace {

// Warm-ups write fewer tokens: they are there to load what is loaded once.
constexpr int64_t kWarmUpTokens = 16;

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

LoadOptions LoadOptionsOf(const Settings& s, int64_t concurrency, int64_t vocab_size) {
  LoadOptions load;
  load.input_len = s.input_len;
  load.output_len = s.output_len;
  load.max_concurrency = concurrency;
  load.num_prompts = s.num_prompts > 0 ? s.num_prompts : std::max<int64_t>(concurrency, 1);
  load.request_rate = s.request_rate;
  load.vocab_size = vocab_size;
  // Runs share no beginnings of prompts: else a later one would find them in the server's cache.
  const auto run = static_cast<uint64_t>(concurrency << 32 | s.input_len);
  load.seed = RandomBits(static_cast<uint64_t>(*s.seed), run, Draw::kSeed);
  return load;
}

Status WarmUp(const Settings& s, LoadOptions load, LoadTarget& target, LiveLine& live) {
  if (s.num_warmups == 0) return OkStatus();
  load.num_prompts = s.num_warmups;
  load.output_len = std::min(load.output_len, kWarmUpTokens);
  load.request_rate = LoadOptions().request_rate;
  load.seed = ~load.seed;
  LoadRun run(load);
  SC_RETURN_IF_ERROR(target.Send(run, live));
  live.Clear();
  if (run.failed() == 0) return OkStatus();
  return Internal(fmt::format("a request before the benchmark failed: {}",
                              run.failures().begin()->second.first));
}

std::string LoadFlags(const Settings& s, const LoadOptions& load) {
  std::string flags = fmt::format(
      " --input-len {} --output-len {} --num-prompts {} --max-concurrency {} --num-warmups {}",
      load.input_len, load.output_len, load.num_prompts, load.max_concurrency, s.num_warmups);
  if (!std::isinf(s.request_rate)) flags += fmt::format(" --request-rate {}", s.request_rate);
  return flags + fmt::format(" --seed {}", *s.seed);
}

std::string JsonLine(const Settings& s, const std::string& command, const LoadTarget& target,
                     const LoadFigures& figures, const LoadRun& run) {
  serve::JsonWriter json;
  json.BeginObject().Field("bench", s.benchmark);
  WriteFields(figures, run, s.save_detailed, json);
  target.WriteFields(json);
  if (!s.label.empty()) json.Field("label", s.label);
  json.Field("seed", *s.seed).Field("command", command + LoadFlags(s, figures.load)).EndObject();
  return json.Take();
}

}  // namespace

LiveLine::LiveLine() : terminal_(isatty(STDERR_FILENO) == 1) {}

void LiveLine::Show(const LoadRun& run, LoadRun::Clock::time_point now) {
  constexpr std::chrono::seconds kRateOver{2};
  if (!terminal_ || (drawn_ && now - last_ < kEvery)) return;
  if (!drawn_) {
    rate_from_ = now;
    chunks_from_ = run.chunks();
    rate_ = 0;
  } else if (now - rate_from_ >= kRateOver) {
    rate_ = static_cast<double>(run.chunks() - chunks_from_) /
            std::chrono::duration<double>(now - rate_from_).count();
    rate_from_ = now;
    chunks_from_ = run.chunks();
  }
  drawn_ = true;
  last_ = now;
  const int64_t all = run.options().num_prompts;
  // By tokens, of which a chunk is one as a rule: requests end in waves.
  const double part = static_cast<double>(run.chunks()) /
                      static_cast<double>(all * std::max<int64_t>(run.options().output_len, 1));
  const double seconds = run.seconds(now);
  const std::string left =
      part > 0.02 && part < 1 ? fmt::format(", {} left", Duration(seconds / part - seconds)) : "";
  fmt::print(stderr, "\rconcurrency {}: {} / {} requests, {} running, {:.0f} chunks/s, {}{}\x1b[K",
             run.options().max_concurrency, run.ended(), all, run.running(), rate_,
             Duration(seconds), left);
  std::fflush(stderr);
}

void LiveLine::Clear() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

Result<std::vector<int64_t>> ParseConcurrencies(const std::string& text) {
  constexpr int64_t kMost = 65536;
  std::vector<int64_t> values;
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 0 || value > kMost || (stop != end && *stop != ',')) break;
    values.push_back(value);
    if (stop == end) return values;
    at = stop + 1;
  }
  return InvalidArgument(fmt::format(
      "--max-concurrency: must be a number up to {}, or a list such as 1,4,8, not \"{}\"", kMost,
      text));
}

Result<std::vector<int64_t>> ConcurrenciesOf(const Settings& settings) {
  if (settings.max_concurrency.empty()) return std::vector<int64_t>{0};
  return ParseConcurrencies(settings.max_concurrency);
}

Status SweepLoad(const Settings& s, const std::string& command, LoadTarget& target) {
  if (s.input_len < 1) return InvalidArgument("--input-len: must be at least 1 for a load");
  if (s.output_len < 1) return InvalidArgument("--output-len: must be at least 1 for a load");
  SC_ASSIGN_OR_RETURN(const std::vector<int64_t> concurrencies, ConcurrenciesOf(s));
  LiveLine live;
  std::vector<LoadFigures> runs;
  int64_t requests = 0, failed = 0;
  for (const int64_t concurrency : concurrencies) {
    const LoadOptions load = LoadOptionsOf(s, concurrency, target.vocab_size());
    SC_RETURN_IF_ERROR(WarmUp(s, load, target, live));
    const StepHistogram before = target.steps();
    LoadRun run(load);
    SC_RETURN_IF_ERROR(target.Send(run, live));
    live.Clear();
    runs.push_back(FiguresOf(run, Since(target.steps(), before)));
    const LoadFigures& figures = runs.back();
    requests += figures.load.num_prompts;
    failed += figures.failed;
    fmt::print("{}\n", Describe(figures, run));
    std::fflush(stdout);
    if (s.output_json.empty()) continue;
    SC_RETURN_IF_ERROR(AppendLines(s.output_json, {JsonLine(s, command, target, figures, run)}));
  }
  if (runs.size() > 1) fmt::print("{}", DescribeSweep(runs));
  if (failed == 0) return OkStatus();
  return Internal(fmt::format("bench {}: {} of {} requests failed", s.benchmark, failed, requests));
}

}  // namespace seacliff
