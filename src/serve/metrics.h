// What /metrics tells, in the Prometheus text format. Counted here are requests to the engine (one
// for each choice of each prompt), each once; what only the engine knows comes from EngineStats.
// Belongs to the server's thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/splice.h"

namespace seacliff::serve {

// Tokens that the prefix cache keeps or loses together.
inline constexpr size_t kCacheBlock = 128;

// Counts of values up to each bound (the last bucket has none), their number and sum.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds)
      : bounds_(bounds), counts_(bounds.size() + 1, 0) {}

  void Observe(double value, uint64_t times = 1);

  std::span<const double> bounds() const { return bounds_; }
  const std::vector<uint64_t>& counts() const { return counts_; }  // of each bucket alone
  uint64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::span<const double> bounds_;
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0;
};

// How a request ended, as a metric's label.
enum class Outcome : int32_t { kStop, kLength, kAbort, kError };
inline constexpr std::array<const char*, 4> kOutcomeNames = {"stop", "length", "abort", "error"};

struct Metrics {
  Metrics();

  uint64_t prompt_tokens = 0;         // of requests whose first token has come
  uint64_t cached_prompt_tokens = 0;  // of those, found in the prefix cache
  uint64_t generation_tokens = 0;
  std::array<uint64_t, 4> finished = {};  // by Outcome
  uint64_t rejected_queue_full = 0;
  uint64_t rejected_draining = 0;
  uint64_t stalls = 0;
  uint64_t tool_calls = 0;  // delivered
  uint64_t empty_replies = 0;
  std::array<uint64_t, kCallFaultNames.size()> malformed_calls = {};  // by CallFault
  SpliceCounts splices;                                               // turns of prompts

  Histogram time_to_first_token, inter_token_latency, time_per_output_token, e2e_latency,
      decode_time, grammar_compile;                                               // seconds
  Histogram request_prompt_tokens, request_generation_tokens, params_max_tokens;  // tokens
  Histogram params_n;
};

struct MetricsText {
  std::string_view model_name;
  EngineStats stats;
  bool vllm_names = true;  // also under the names that vLLM's dashboards and routers read
};

std::string RenderMetrics(const Metrics& metrics, const MetricsText& text);

}  // namespace seacliff::serve
