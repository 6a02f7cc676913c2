// The figures of one run of a load, as `vllm bench serve` defines them: as text and as JSON.
//
//   TTFT  from sending a request to the first chunk of its reply
//   TPOT  (end to end - TTFT) / (output tokens - 1), of each request
//   ITL   from each chunk of a reply to the next, over all requests
//   E2E   from sending a request to the last chunk of its reply
//
// Failed requests count in none of them. Duration is from the first request's start to the last
// one's end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seacliff/step_times.h"
#include "serve/json_writer.h"
#include "tools/load.h"

namespace seacliff {

// Milliseconds.
struct Quantiles {
  double mean = 0, median = 0, p90 = 0, p99 = 0;
};
// Between two values the percentiles are interpolated, as numpy does; all NaN if there is no value.
Quantiles QuantilesOf(std::vector<double> seconds);

// Times of the engine's decode steps in a run, as a histogram tells them.
struct StepHistogram {
  std::vector<double> bounds;    // seconds, ascending; the last bucket has none
  std::vector<uint64_t> counts;  // of each bucket alone
  double seconds = 0;            // of all together

  uint64_t count() const;
  double mean() const { return seconds / static_cast<double>(count()); }
  // Interpolated within its bucket; the mean if it lies beyond the last bound.
  double median() const;
};
StepHistogram HistogramOf(const StepTimes& times);
// What has come since `before`, which may be empty.
StepHistogram Since(const StepHistogram& now, const StepHistogram& before);

struct LoadFigures {
  LoadOptions load;
  double duration = 0;
  int64_t completed = 0, failed = 0;
  int64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0;  // of those completed
  Quantiles ttft, tpot, itl, e2el;
  StepHistogram steps;  // empty if the server tells none

  double request_throughput() const { return static_cast<double>(completed) / duration; }
  double output_throughput() const { return static_cast<double>(output_tokens) / duration; }
  double total_throughput() const {
    return static_cast<double>(input_tokens + output_tokens) / duration;
  }
};
LoadFigures FiguresOf(const LoadRun& run, StepHistogram steps);

// Several lines for one run; the failures, each kind once with its count, stand below.
std::string Describe(const LoadFigures& figures, const LoadRun& run);
// A line for each run.
std::string DescribeSweep(const std::vector<LoadFigures>& runs);

// The fields of a JSON line, under the names of vLLM's result files where they have one.
// `detailed`: also each completed request's ttfts, itls, e2els, in seconds.
void WriteFields(const LoadFigures& figures, const LoadRun& run, bool detailed,
                 serve::JsonWriter& json);

}  // namespace seacliff
