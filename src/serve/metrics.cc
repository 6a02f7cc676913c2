// The tables of metrics, and their rendering.
#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace seacliff::serve {
namespace {

constexpr double kFirstTokenBounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                        0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                        20,    40,    80,   160,  640,  2560};
constexpr double kTokenBounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                                   0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5,
                                   5,     7.5,    10,    20,   40,    80};
constexpr double kRequestBounds[] = {0.05, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5, 5,    10,  15,
                                     20,   30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};
constexpr double kSizeBounds[] = {1,     2,      5,      10,     20,   50,    100,
                                  200,   500,    1000,   2000,   5000, 10000, 20000,
                                  50000, 100000, 200000, 500000, 1e6};
constexpr double kChoiceBounds[] = {1, 2, 5, 10, 20};

struct GaugeRow {
  const char* name;
  const char* old_vllm_name;  // "" if it never had another
  const char* help;
  double (*read)(const EngineStats& stats);
};
constexpr GaugeRow kGauges[] = {
    {"num_requests_running", "", "Requests in the running batch.",
     [](const EngineStats& stats) { return static_cast<double>(stats.running); }},
    {"num_requests_waiting", "", "Requests waiting to be run.",
     [](const EngineStats& stats) { return static_cast<double>(stats.waiting); }},
    {"kv_cache_usage_perc", "gpu_cache_usage_perc", "Part of the cache's pages in use, 0 to 1.",
     [](const EngineStats& stats) { return stats.cache_usage; }},
};

struct CounterRow {
  const char* name;
  const char* old_vllm_name;
  const char* help;
  uint64_t Metrics::*value;
};
constexpr CounterRow kCounters[] = {
    {"prompt_tokens_total", "", "Prompt tokens processed.", &Metrics::prompt_tokens},
    {"prompt_tokens_cached_total", "", "Prompt tokens found in the prefix cache.",
     &Metrics::cached_prompt_tokens},
    {"prefix_cache_queries_total", "gpu_prefix_cache_queries_total",
     "Prompt tokens looked up in the prefix cache.", &Metrics::prompt_tokens},
    {"prefix_cache_hits_total", "gpu_prefix_cache_hits_total",
     "Prompt tokens found in the prefix cache.", &Metrics::cached_prompt_tokens},
    {"generation_tokens_total", "", "Tokens generated.", &Metrics::generation_tokens},
};

// What the engine counts.
struct EngineCounterRow {
  const char* name;
  bool is_vllm;  // vLLM has it too, under the same name
  const char* help;
  uint64_t EngineStats::*value;
};
constexpr EngineCounterRow kEngineCounters[] = {
    {"engine_steps_total", false, "Steps of the engine.", &EngineStats::steps},
    {"num_preemptions_total", true, "Requests that made room for others and went on later.",
     &EngineStats::preemptions},
    {"recomputed_tokens_total", false, "Tokens computed again after a preemption.",
     &EngineStats::recomputed_tokens},
    {"idle_prefill_tokens_total", false, "Tokens of next prompts that were computed in idle time.",
     &EngineStats::background_tokens},
    {"prefix_cache_lost_total", false,
     "Turns of conversations that found less in the prefix cache than the turn before had left.",
     &EngineStats::lost_prefixes},
    {"prefix_cache_evicted_pages_total", false, "Pages that left the prefix cache for new ones.",
     &EngineStats::evicted_pages},
    {"prefix_cache_dropped_snapshots_total", false,
     "Places to start from that left the prefix cache for new ones.",
     &EngineStats::dropped_snapshots},
};

struct EngineGaugeRow {
  const char* name;
  const char* help;
  int64_t EngineStats::*value;
};
constexpr EngineGaugeRow kEngineGauges[] = {
    {"kv_cache_pages", "Pages of the cache, used and free.", &EngineStats::pages},
    {"kv_cache_free_pages", "Pages that nobody holds.", &EngineStats::free_pages},
    {"prefix_cache_pages", "Pages that the prefix cache alone holds.", &EngineStats::cached_pages},
    {"prefix_cache_snapshots", "Places in the prefix cache that prompts can start from.",
     &EngineStats::snapshots},
};

constexpr std::array<const char*, kCacheMisses> kMissNames = {"cold", "evicted", "snapshot", "salt",
                                                              "template"};

struct HistogramRow {
  const char* name;
  const char* help;
  Histogram Metrics::*value;
};
constexpr HistogramRow kHistograms[] = {
    {"time_to_first_token_seconds", "From a request's arrival to its first token.",
     &Metrics::time_to_first_token},
    {"inter_token_latency_seconds", "From one token of a request to the next.",
     &Metrics::inter_token_latency},
    {"request_time_per_output_token_seconds", "Mean time between a request's tokens.",
     &Metrics::time_per_output_token},
    {"e2e_request_latency_seconds", "From a request's arrival to its end.", &Metrics::e2e_latency},
    {"request_decode_time_seconds", "From a request's first token to its last.",
     &Metrics::decode_time},
    {"request_prompt_tokens", "Prompt tokens of a request.", &Metrics::request_prompt_tokens},
    {"request_generation_tokens", "Tokens generated for a request.",
     &Metrics::request_generation_tokens},
    {"request_params_max_tokens", "Most tokens a request may generate.",
     &Metrics::params_max_tokens},
    {"request_params_n", "Choices a request asked for.", &Metrics::params_n},
};

// Quotes, backslashes and newlines of a label's value.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '"' || c == '\\') out.push_back('\\');
      out.push_back(c);
    }
  }
  return out;
}

class Renderer {
 public:
  explicit Renderer(std::string_view model_name)
      : labels_(fmt::format("model_name=\"{}\",engine=\"0\"", Escaped(model_name))) {}

  void Head(const std::string& name, const char* type, const char* help) {
    fmt::format_to(Out(), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  void Sample(const std::string& name, double value, const std::string& more_labels = "") {
    fmt::format_to(Out(), "{}{{{}{}}} {}\n", name, labels_, more_labels, value);
  }
  // `bound(i)`: of bucket i, but for the last.
  template <typename Counts, typename Bound>
  void Buckets(const std::string& name, const Counts& counts, const Bound& bound, double sum) {
    uint64_t below = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      below += counts[i];
      Sample(name + "_bucket", static_cast<double>(below),
             i + 1 == counts.size() ? ",le=\"+Inf\"" : fmt::format(",le=\"{}\"", bound(i)));
    }
    Sample(name + "_count", static_cast<double>(below));
    Sample(name + "_sum", sum);
  }
  std::string Take() { return std::move(out_); }

 private:
  std::back_insert_iterator<std::string> Out() { return std::back_inserter(out_); }
  std::string labels_;
  std::string out_;
};

void RenderAll(const Metrics& metrics, const EngineStats& stats, const std::string& prefix,
               bool old_names, Renderer* out) {
  const auto each_name = [&](const auto& row, const auto& render) {
    render(prefix + row.name);
    if (old_names && row.old_vllm_name[0] != '\0') render(prefix + row.old_vllm_name);
  };
  for (const GaugeRow& row : kGauges) {
    each_name(row, [&](const std::string& name) {
      out->Head(name, "gauge", row.help);
      out->Sample(name, row.read(stats));
    });
  }
  for (const CounterRow& row : kCounters) {
    each_name(row, [&](const std::string& name) {
      out->Head(name, "counter", row.help);
      out->Sample(name, static_cast<double>(metrics.*row.value));
    });
  }
  std::string name = prefix + "request_success_total";
  out->Head(name, "counter", "Requests that ended, by how.");
  for (size_t i = 0; i < kOutcomeNames.size(); ++i) {
    out->Sample(name, static_cast<double>(metrics.finished[i]),
                fmt::format(",finished_reason=\"{}\"", kOutcomeNames[i]));
  }
  name = prefix + "admission_rejections_total";
  out->Head(name, "counter", "Requests refused before they were queued.");
  out->Sample(name, static_cast<double>(metrics.rejected_queue_full), ",reason=\"queue_full\"");
  out->Sample(name, static_cast<double>(metrics.rejected_draining), ",reason=\"draining\"");
  for (const HistogramRow& row : kHistograms) {
    out->Head(prefix + row.name, "histogram", row.help);
    const Histogram& histogram = metrics.*row.value;
    out->Buckets(
        prefix + row.name, histogram.counts(), [&](size_t i) { return histogram.bounds()[i]; },
        histogram.sum());
  }
}

}  // namespace

void Histogram::Observe(double value, uint64_t times) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += times;
  count_ += times;
  sum_ += value * static_cast<double>(times);
}

Metrics::Metrics()
    : time_to_first_token(kFirstTokenBounds),
      inter_token_latency(kTokenBounds),
      time_per_output_token(kTokenBounds),
      e2e_latency(kRequestBounds),
      decode_time(kRequestBounds),
      grammar_compile(kFirstTokenBounds),
      request_prompt_tokens(kSizeBounds),
      request_generation_tokens(kSizeBounds),
      params_max_tokens(kSizeBounds),
      params_n(kChoiceBounds) {}

std::string RenderMetrics(const Metrics& metrics, const MetricsText& text) {
  Renderer out(text.model_name);
  RenderAll(metrics, text.stats, "seacliff:", false, &out);
  for (const EngineCounterRow& row : kEngineCounters) {
    for (const std::string prefix : {"seacliff:", "vllm:"}) {
      if (prefix == "vllm:" && !(row.is_vllm && text.vllm_names)) continue;
      out.Head(prefix + row.name, "counter", row.help);
      out.Sample(prefix + row.name, static_cast<double>(text.stats.*row.value));
    }
  }
  for (const std::string prefix : {"seacliff:", "vllm:"}) {
    if (prefix == "vllm:" && !text.vllm_names) continue;
    const std::string name = prefix + "cache_config_info";
    out.Head(name, "gauge", "The size of the cache's blocks in tokens, and how many there are.");
    out.Sample(
        name, 1,
        fmt::format(",block_size=\"{}\",num_gpu_blocks=\"{}\"", kCacheBlock, text.stats.pages));
  }
  for (const EngineGaugeRow& row : kEngineGauges) {
    const std::string name = std::string("seacliff:") + row.name;
    out.Head(name, "gauge", row.help);
    out.Sample(name, static_cast<double>(text.stats.*row.value));
  }
  const std::string steps = "seacliff:decode_step_seconds";
  out.Head(steps, "histogram", "Time of a step that carries decodes alone.");
  out.Buckets(steps, text.stats.decode_steps.counts(), StepTimes::Bound,
              text.stats.decode_steps.seconds());
  const std::string host = "seacliff:engine_host_seconds_total";
  out.Head(host, "counter", "Time between steps that follow each other, which the host took.");
  out.Sample(host, text.stats.host_seconds);
  const std::string rules = "seacliff:engine_rules_seconds_total";
  out.Head(rules, "counter", "Time that grammars took to say which tokens may come next.");
  out.Sample(rules, text.stats.rules_seconds);
  const std::string compile = "seacliff:grammar_compile_seconds";
  out.Head(compile, "histogram", "Time to make the grammar of a request, or to find it again.");
  out.Buckets(
      compile, metrics.grammar_compile.counts(),
      [&](size_t i) { return metrics.grammar_compile.bounds()[i]; }, metrics.grammar_compile.sum());
  const std::string stalls = "seacliff:engine_stalls_total";
  out.Head(stalls, "counter", "Times that there was work and no step ended for too long.");
  out.Sample(stalls, static_cast<double>(metrics.stalls));
  const std::string calls = "seacliff:tool_calls_total";
  out.Head(calls, "counter", "Tool calls in replies.");
  out.Sample(calls, static_cast<double>(metrics.tool_calls));
  const std::string malformed = "seacliff:malformed_tool_calls_total";
  out.Head(malformed, "counter", "What was wrong in the tool calls that models wrote, by kind.");
  for (size_t i = 0; i < kCallFaultNames.size(); ++i) {
    out.Sample(malformed, static_cast<double>(metrics.malformed_calls[i]),
               fmt::format(",kind=\"{}\"", kCallFaultNames[i]));
  }
  const std::string empty = "seacliff:empty_replies_total";
  out.Head(empty, "counter", "Replies of chats that ended without content and tool calls.");
  out.Sample(empty, static_cast<double>(metrics.empty_replies));
  const std::string misses = "seacliff:prefix_cache_missed_tokens_total";
  out.Head(misses, "counter",
           "Prompt tokens in whole blocks that were not found in the prefix cache, by reason.");
  for (size_t i = 0; i < kCacheMisses; ++i) {
    out.Sample(misses, static_cast<double>(text.stats.missed_tokens[i]),
               fmt::format(",reason=\"{}\"", kMissNames[i]));
  }
  const std::string spliced = "seacliff:spliced_turns_total";
  out.Head(spliced, "counter",
           "The assistant's turns in prompts that got the tokens they were sampled as.");
  out.Sample(spliced, static_cast<double>(metrics.splices.spliced));
  const std::string unspliced = "seacliff:unspliced_turns_total";
  out.Head(unspliced, "counter",
           "The assistant's turns in prompts that were encoded anew, by reason.");
  for (size_t i = 0; i < kUnsplicedNames.size(); ++i) {
    out.Sample(unspliced, static_cast<double>(metrics.splices.unspliced[i]),
               fmt::format(",reason=\"{}\"", kUnsplicedNames[i]));
  }
  if (text.vllm_names) RenderAll(metrics, text.stats, "vllm:", true, &out);
  return out.Take();
}

}  // namespace seacliff::serve
