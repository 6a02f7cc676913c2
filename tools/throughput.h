// Runs random prompts through a model and takes the time of prefill and of decoding. No scheduler,
// no text; the sampling of every token (greedy) is part of what is timed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/profile.h"
#include "model/direct.h"
#include "model/model.h"

namespace seacliff {

struct ThroughputOptions {
  int64_t input_len = 512, output_len = 128;  // 0: not measured
  int64_t num_prompts = 1;                    // sequences, all at once
  int64_t depth = 0;                          // tokens of each that are in the cache before
  int64_t max_num_batched_tokens = 512;
  int64_t warmup = 1, repeat = 5;
  uint64_t seed = 0;
  bool profile = false;

  int64_t max_len() const { return depth + input_len + output_len; }
};

// One phase of all runs.
struct PhaseResult {
  std::string name;  // as llama-bench has it: "pp512", "tg128 @ d512"
  int64_t depth = 0, tokens = 0, steps = 0;
  std::vector<double> seconds;  // of each run that counts
  Work work;                    // of one run; every run does the same
  std::string profile;          // a table, if it was asked for

  double median_seconds() const;
  double tokens_per_second() const { return static_cast<double>(tokens) / median_seconds(); }
};

class Throughput {
 public:
  // The model must have been loaded with DirectRunner::SizeCache(num_prompts, max_len()).
  Throughput(Model& model, const ThroughputOptions& options);

  // Prefill and decoding, those that were asked for. In each run a sequence takes in `depth` tokens
  // (not timed), then its prompt, then one token a step.
  Result<std::vector<PhaseResult>> Run();

 private:
  enum class Purpose : uint8_t { kWarmUp, kCount, kTime, kProfile };

  Status RunOnce(Purpose purpose, std::vector<PhaseResult>& phases);
  // Runs one phase for one of the purposes; `steps` does the work.
  template <typename F>
  Status Phase(Purpose purpose, PhaseResult& phase, F steps);
  // Feeds tokens [from, to) of every sequence in steps of at most max_num_batched_tokens; the last
  // one of each gets a token sampled.
  Status Prefill(int64_t from, int64_t to);
  Status Decode();
  Status Step(const std::vector<DirectRunner::Piece>& pieces, const std::vector<int32_t>& rows);

  Model& model_;
  ThroughputOptions options_;
  DirectRunner runner_;
  std::vector<std::vector<int32_t>> ids_;  // of each sequence, max_len() of them
  int64_t steps_ = 0;
};

}  // namespace seacliff
