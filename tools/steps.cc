// Times the calls of a decode step.
#include "tools/steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <thread>

namespace seacliff {
namespace {

// Fills the caches of `seqs` sequences with `depth` random tokens each.
Status Prefill(DirectRunner& runner, const StepsOptions& o, int64_t seqs, std::mt19937_64& random,
               uint64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t s = 0; s < seqs; ++s) {
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
// with a scale for each 32, the shared expert's FP8 with one for each 128 x 128; of each a rank
// holds its part).
double DistinctExperts(const ModelConfig& c, int64_t ranks, const StepBudget& budget) {
  const auto weights = static_cast<double>(3 * c.dim * c.inter_dim / ranks);
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

bool IsCollective(const CallName& name) {
  return name.call.starts_with("all_reduce") || name.call.starts_with("gather");
}

// What each of the last step's `count` calls adds to it, collectives aside.
Result<std::vector<StepCall>> Timeline(Model& model, size_t count) {
  std::vector<StepCall> calls;
  // What is timed is the step several times over. Other ranks ask too, in threads of their own, and
  // run nothing.
  size_t seen = 0, wanted = count;
  const auto own = std::this_thread::get_id();
  const std::function<bool(const CallName&)> first_ones = [&](const CallName& name) {
    if (std::this_thread::get_id() != own || IsCollective(name)) return false;
    if (calls.size() < count) calls.push_back({name, 0});
    return seen++ % count < wanted;
  };
  Result<double> time = 0.0;
  double before = 0;
  for (size_t i = 0; i <= count && time.ok(); ++i) {  // the first time round for the names
    seen = 0;
    wanted = i == 0 ? count : i;
    model.context().set_wanted(&first_ones);
    time = model.TimeLastStep();
    model.context().set_wanted(nullptr);
    if (i == 0 || !time.ok()) continue;
    calls[i - 1].microseconds = time.value() - before;
    before = time.value();
  }
  if (!time.ok()) return time.status();
  return calls;
}

// Of a step in which the first `batch` sequences bring the token after `depth`.
Result<StepBudget> MeasureStep(Model& model, DirectRunner& runner, const StepsOptions& o,
                               int64_t batch, std::span<const int32_t> ids) {
  const ModelConfig& c = model.config();
  std::vector<int32_t> rows;
  std::vector<DirectRunner::Piece> pieces;
  for (int64_t s = 0; s < batch; ++s) {
    runner.Restart(s, o.depth);
    pieces.push_back({s, ids.subspan(static_cast<size_t>(s), 1)});
    rows.push_back(static_cast<int32_t>(s));
  }
  Profile profile;
  model.context().set_profile(&profile);
  const Status status = runner.Step(pieces, rows);
  model.context().set_profile(nullptr);
  SC_RETURN_IF_ERROR(status);

  StepBudget budget;
  budget.batch = batch;
  for (const auto& [name, line] : profile.lines()) {
    if (IsCollective(name)) {
      // The other ranks take no part in what is timed below.
      const double us = static_cast<double>(line.nanoseconds) / 1e3;
      budget.lines.push_back({name, line.calls, us, line.work});
      continue;
    }
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
  if (o.timeline) {
    int64_t count = 0;
    for (const StepLine& line : budget.lines) count += IsCollective(line.name) ? 0 : line.calls;
    SC_ASSIGN_OR_RETURN(budget.calls, Timeline(model, static_cast<size_t>(count)));
  }
  budget.work = profile.total().work;
  budget.experts = DistinctExperts(c, o.ranks, budget);
  const double miss = 1 - static_cast<double>(c.picks) / static_cast<double>(c.experts);
  budget.uniform_experts =
      static_cast<double>(c.experts) * (1 - std::pow(miss, static_cast<double>(batch)));
  std::sort(budget.lines.begin(), budget.lines.end(), [](const StepLine& a, const StepLine& b) {
    return a.name.part != b.name.part ? a.name.part < b.name.part : a.microseconds > b.microseconds;
  });
  return budget;
}

}  // namespace

Result<std::vector<StepBudget>> MeasureSteps(Model& model, const StepsOptions& o) {
  const auto vocab = static_cast<uint64_t>(model.config().vocab_size);
  const int64_t seqs = *std::max_element(o.batches.begin(), o.batches.end());
  std::mt19937_64 random(o.seed);
  DirectRunner runner(model, seqs, o.depth + 1);
  SC_RETURN_IF_ERROR(Prefill(runner, o, seqs, random, vocab));
  std::vector<int32_t> ids;
  for (int64_t s = 0; s < seqs; ++s) ids.push_back(static_cast<int32_t>(random() % vocab));
  std::vector<StepBudget> budgets;
  for (const int64_t batch : o.batches) {
    SC_ASSIGN_OR_RETURN(StepBudget budget, MeasureStep(model, runner, o, batch, ids));
    budgets.push_back(std::move(budget));
  }
  return budgets;
}

std::string StepBudget::Describe(double read_gbps) const {
  const auto limit = [&](const Work& w) { return static_cast<double>(w.bytes) / read_gbps / 1e3; };
  std::string text =
      fmt::format("{:<16} {:<38} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "part", "call", "calls",
                  "us/call", "us/step", "MB/call", "limit us", "of limit");
  const auto add = [&](const std::string& part, const std::string& call, int64_t count, double us,
                       const Work& w) {
    const double each = us / static_cast<double>(count),
                 least = limit(w) / static_cast<double>(count);
    text += fmt::format("{:<16} {:<38} {:>6} {:>9.2f} {:>9.1f} {:>9.2f} {:>9.2f} {:>7.1f} %\n",
                        part, call, count, each, us,
                        static_cast<double>(w.bytes) / static_cast<double>(count) / 1e6, least,
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
  if (!calls.empty()) text += "\nwhat each call adds to the step, us\n";
  for (const StepCall& call : calls) {
    text +=
        fmt::format("{:<16} {:<38} {:>9.2f}\n", call.name.part, call.name.call, call.microseconds);
  }
  return text;
}

}  // namespace seacliff
