// Where the time of a decode step goes on a GPU: each kind of call of each kind of layer by itself,
// and the whole step, beside what the memory's bandwidth would allow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/profile.h"
#include "model/direct.h"
#include "model/model.h"

namespace seacliff {

struct StepsOptions {
  std::vector<int64_t> batches = {1};  // sequences of a step: a budget for each
  int64_t depth = 8192;                // tokens of each in the cache
  int64_t max_num_batched_tokens = 512;
  int64_t ranks = 1;  // that share the model; what is measured is the first one's
  uint64_t seed = 0;
  bool timeline = false;  // what each call adds to the step
};

struct StepLine {
  CallName name;
  int64_t calls = 0;        // of a step
  double microseconds = 0;  // of them all, run after one another as a graph
  Work work;                // likewise
};

// A call in its place: the time of the step up to it, less that of the calls before. What runs
// beside another call counts once, so that these times add up to the step's.
struct StepCall {
  CallName name;
  double microseconds = 0;
};

struct StepBudget {
  int64_t batch = 0;
  std::vector<StepLine> lines;  // by part, dearest first
  std::vector<StepCall> calls;  // in their order, where they were asked for
  double microseconds = 0;      // of the whole step as a graph
  Work work;
  double experts = 0, uniform_experts = 0;  // distinct ones a layer: seen, by uniform routing

  // What reading the bytes takes at this rate.
  double limit_us(double read_gbps) const {
    return static_cast<double>(work.bytes) / read_gbps / 1e3;
  }
  std::string Describe(double read_gbps) const;
};

// The model must have been loaded with DirectRunner::SizeCache(largest batch, depth + 1).
Result<std::vector<StepBudget>> MeasureSteps(Model& model, const StepsOptions& options);

}  // namespace seacliff
