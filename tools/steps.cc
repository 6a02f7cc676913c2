// Times the calls of a decode step.
#include "tools/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

namespace seacliff {
namespace {

// Fills every sequence's cache with `depth` random tokens.
Status Prefill(DirectRunner& runner, const StepsOptions& o, std::mt19937_64& random,
               uint64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t s = 0; s < o.num_prompts; ++s) {
    for (int64_t at = 0; at < o.depth;) {
      const int64_t count = std::min(o.depth - at, o.max_num_batched_tokens);
      ids.clear();
      for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random() % vocab));
      const DirectRunner::Piece piece{s, ids};
      SC_RETURN_IF_ERROR(runner.Step({&piece, 1}, {}));
      at += count;
    }
  }
  return OkStatus();
}

// Distinct experts of a layer by the bytes that their calls read (spec/model.md 3.3: FP4 weights
// with a scale for each 32, the shared expert's FP8 with one for each 128 x 128).
double DistinctExperts(const ModelConfig& c, const StepBudget& budget) {
  const auto weights = static_cast<double>(3 * c.dim * c.inter_dim);
  int64_t calls = 0;
  double bytes = 0;
  for (const StepLine& line : budget.lines) {
    if (!line.name.call.starts_with("experts=")) continue;
    calls += line.calls;
    bytes += static_cast<double>(line.work.bytes);
  }
  if (calls == 0) return 0;
  const double fp8 = weights * (1 + 1.0 / 16384), fp4 = weights * 17 / 32;
  const double shared = fp8 * static_cast<double>(c.shared_experts);
  return (bytes / static_cast<double>(calls) - shared) / (c.experts_fp4 ? fp4 : fp8);
}

}  // namespace

Result<StepBudget> MeasureSteps(Model& model, const StepsOptions& o) {
  const ModelConfig& c = model.config();
  const auto vocab = static_cast<uint64_t>(c.vocab_size);
  std::mt19937_64 random(o.seed);
  DirectRunner runner(model, o.num_prompts, o.depth + 1);
  SC_RETURN_IF_ERROR(Prefill(runner, o, random, vocab));

  std::vector<int32_t> ids, rows;
  for (int64_t s = 0; s < o.num_prompts; ++s) {
    ids.push_back(static_cast<int32_t>(random() % vocab));
    rows.push_back(static_cast<int32_t>(s));
  }
  std::vector<DirectRunner::Piece> pieces;
  for (int64_t s = 0; s < o.num_prompts; ++s)
    pieces.push_back({s, {&ids[static_cast<size_t>(s)], 1}});
  Profile profile;
  model.context().set_profile(&profile);
  const Status status = runner.Step(pieces, rows);
  model.context().set_profile(nullptr);
  SC_RETURN_IF_ERROR(status);

  StepBudget budget;
  for (const auto& [name, line] : profile.lines()) {
    const std::function<bool(const CallName&)> wanted = [&name = name](const CallName& call) {
      return call == name;
    };
    model.context().set_wanted(&wanted);
    const Result<double> time = model.TimeLastStep();
    model.context().set_wanted(nullptr);
    if (!time.ok()) return time.status();
    budget.lines.push_back({name, line.calls, time.value(), line.work});
  }
  SC_ASSIGN_OR_RETURN(budget.microseconds, model.TimeLastStep());
  budget.work = profile.total().work;
  budget.experts = DistinctExperts(c, budget);
  const double miss = 1 - static_cast<double>(c.picks) / static_cast<double>(c.experts);
  budget.uniform_experts =
      static_cast<double>(c.experts) * (1 - std::pow(miss, static_cast<double>(o.num_prompts)));
  std::sort(budget.lines.begin(), budget.lines.end(), [](const StepLine& a, const StepLine& b) {
    return a.name.part != b.name.part ? a.name.part < b.name.part : a.microseconds > b.microseconds;
  });
  return budget;
}

std::string StepBudget::Describe(double read_gbps) const {
  const auto limit = [&](const Work& w) { return static_cast<double>(w.bytes) / read_gbps / 1e3; };
  std::string text =
      fmt::format("{:<16} {:<38} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "part", "call", "calls",
                  "us/call", "us/step", "MB/call", "limit us", "of limit");
  const auto add = [&](const std::string& part, const std::string& call, int64_t calls, double us,
                       const Work& w) {
    const double each = us / static_cast<double>(calls),
                 least = limit(w) / static_cast<double>(calls);
    text += fmt::format("{:<16} {:<38} {:>6} {:>9.2f} {:>9.1f} {:>9.2f} {:>9.2f} {:>7.1f} %\n",
                        part, call, calls, each, us,
                        static_cast<double>(w.bytes) / static_cast<double>(calls) / 1e6, least,
                        100 * least / each);
  };
  StepLine sum;
  for (const StepLine& line : lines) {
    add(line.name.part, line.name.call, line.calls, line.microseconds, line.work);
    sum.calls += line.calls;
    sum.microseconds += line.microseconds;
  }
  add("", "all, each kind by itself", sum.calls, sum.microseconds, work);
  add("", "the step as one graph", 1, microseconds, work);
  text += fmt::format("distinct experts a layer: {:.1f}; uniform routing gives {:.1f}\n", experts,
                      uniform_experts);
  return text;
}

}  // namespace seacliff
