// Histograms and the text of /metrics.
#include "serve/metrics.h"

#include <gtest/gtest.h>

namespace seacliff::serve {
namespace {

constexpr double kBounds[] = {1, 2};

TEST(Metrics, HistogramsCountUpToEachBound) {
  Histogram histogram(kBounds);
  histogram.Observe(0.5);
  histogram.Observe(1);  // a bound belongs to its bucket
  histogram.Observe(1.5, 3);
  histogram.Observe(9);
  EXPECT_EQ(histogram.counts(), (std::vector<uint64_t>{2, 3, 1}));
  EXPECT_EQ(histogram.count(), 6u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 15);
}

TEST(Metrics, RendersOwnNamesAndAliases) {
  Metrics metrics;
  metrics.prompt_tokens = 12;
  metrics.finished[static_cast<size_t>(Outcome::kLength)] = 3;
  metrics.time_to_first_token.Observe(0.03);
  MetricsText text;
  text.model_name = "a\"b";
  text.stats.running = 2;
  text.stats.cache_usage = 0.5;
  text.stats.preemptions = 4;
  text.stats.pages = 64;
  text.stats.decode_steps.Add(0.0042);
  text.stats.decode_steps.Add(12);
  text.stats.missed_tokens[static_cast<size_t>(CacheMiss::kEvicted)] = 256;
  const std::string both = RenderMetrics(metrics, text);
  const std::string labels = "{model_name=\"a\\\"b\",engine=\"0\"";
  for (const std::string prefix : {"seacliff:", "vllm:"}) {
    for (const std::string& line : {
             "num_requests_running" + labels + "} 2\n",
             "kv_cache_usage_perc" + labels + "} 0.5\n",
             "prompt_tokens_total" + labels + "} 12\n",
             "cache_config_info" + labels + ",block_size=\"128\",num_gpu_blocks=\"64\"} 1\n",
             "request_success_total" + labels + ",finished_reason=\"length\"} 3\n",
             "time_to_first_token_seconds_bucket" + labels + ",le=\"0.02\"} 0\n",
             "time_to_first_token_seconds_bucket" + labels + ",le=\"0.04\"} 1\n",
             "time_to_first_token_seconds_bucket" + labels + ",le=\"+Inf\"} 1\n",
             "time_to_first_token_seconds_count" + labels + "} 1\n",
             "time_to_first_token_seconds_sum" + labels + "} 0.03\n",
         }) {
      EXPECT_NE(both.find("\n" + prefix + line), std::string::npos) << prefix << line;
    }
    EXPECT_NE(both.find("# TYPE " + prefix + "prompt_tokens_total counter\n"), std::string::npos);
  }
  EXPECT_NE(both.find("vllm:gpu_cache_usage_perc" + labels), std::string::npos);
  EXPECT_NE(both.find("\nvllm:num_preemptions_total" + labels + "} 4\n"), std::string::npos);
  EXPECT_NE(both.find("\nseacliff:num_preemptions_total" + labels + "} 4\n"), std::string::npos);
  EXPECT_NE(both.find("\nseacliff:prefix_cache_missed_tokens_total" + labels +
                      ",reason=\"evicted\"} 256\n"),
            std::string::npos);
  for (const std::string& line : {
           "_bucket" + labels + ",le=\"0.00398\"} 0\n",
           "_bucket" + labels + ",le=\"0.00422\"} 1\n",
           "_bucket" + labels + ",le=\"10\"} 1\n",
           "_bucket" + labels + ",le=\"+Inf\"} 2\n",
           "_count" + labels + "} 2\n",
           "_sum" + labels + "} 12.0042\n",
       }) {
    EXPECT_NE(both.find("\nseacliff:decode_step_seconds" + line), std::string::npos) << line;
  }
  EXPECT_EQ(both.find("vllm:engine_steps_total"), std::string::npos);
  text.vllm_names = false;
  EXPECT_EQ(RenderMetrics(metrics, text).find("vllm:"), std::string::npos);
}

TEST(Metrics, EveryNameIsDeclaredOnce) {
  const std::string text = RenderMetrics(Metrics(), {"m", EngineStats(), true});
  size_t at = 0;
  while ((at = text.find("# TYPE ", at)) != std::string::npos) {
    const std::string line = text.substr(at, text.find('\n', at) - at + 1);
    EXPECT_EQ(text.find(line, at + 1), std::string::npos) << line;
    ++at;
  }
}

}  // namespace
}  // namespace seacliff::serve
