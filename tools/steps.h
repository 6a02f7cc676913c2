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
  int64_t num_prompts = 1, depth = 8192;  // sequences, tokens of each in the cache
  int64_t max_num_batched_tokens = 512;
  uint64_t seed = 0;
};

struct StepLine {
  CallName name;
  int64_t calls = 0;        // of a step
  double microseconds = 0;  // of them all, run after one another as a graph
  Work work;                // likewise
};

struct StepBudget {
  std::vector<StepLine> lines;  // by part, dearest first
  double microseconds = 0;      // of the whole step as a graph
  Work work;
  double experts = 0, uniform_experts = 0;  // distinct ones a layer: seen, by uniform routing

  std::string Describe(double read_gbps) const;
};

// The model must have been loaded with DirectRunner::SizeCache(num_prompts, depth + 1).
Result<StepBudget> MeasureSteps(Model& model, const StepsOptions& options);

}  // namespace seacliff
