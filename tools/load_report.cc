// Sums, percentiles and their printed forms.
#include "tools/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace seacliff {
namespace {

// Of sorted values.
double Percentile(const std::vector<double>& sorted, double percent) {
  const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

struct RequestFigures {
  double ttft = 0, e2el = 0;
  std::vector<double> itls;
};
RequestFigures FiguresOf(const RequestTimes& times) {
  RequestFigures figures;
  figures.ttft = times.chunks.front() - times.sent;
  figures.e2el = times.chunks.back() - times.sent;
  for (size_t i = 1; i < times.chunks.size(); ++i) {
    figures.itls.push_back(times.chunks[i] - times.chunks[i - 1]);
  }
  return figures;
}

void WriteList(const char* key, const std::vector<double>& values, serve::JsonWriter& json) {
  json.Key(key).BeginArray();
  for (const double value : values) json.Value(value);
  json.EndArray();
}

struct NamedQuantiles {
  const char* label;
  const char* key;  // in vLLM's names
  Quantiles LoadFigures::*value;
};
constexpr NamedQuantiles kQuantiles[] = {
    {"TTFT", "ttft", &LoadFigures::ttft},
    {"TPOT", "tpot", &LoadFigures::tpot},
    {"ITL", "itl", &LoadFigures::itl},
    {"E2E", "e2el", &LoadFigures::e2el},
};

}  // namespace

Quantiles QuantilesOf(std::vector<double> seconds) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (seconds.empty()) return {kNone, kNone, kNone, kNone};
  std::sort(seconds.begin(), seconds.end());
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  return {1e3 * sum / static_cast<double>(seconds.size()), 1e3 * Percentile(seconds, 50),
          1e3 * Percentile(seconds, 90), 1e3 * Percentile(seconds, 99)};
}

uint64_t StepHistogram::count() const {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

double StepHistogram::median() const {
  const double half = static_cast<double>(count()) / 2;
  double below = 0;
  for (size_t i = 0; i < bounds.size(); ++i) {
    const auto here = static_cast<double>(counts[i]);
    if (below + here >= half && here > 0) {
      const double low = i == 0 ? 0 : bounds[i - 1];
      return low + (half - below) / here * (bounds[i] - low);
    }
    below += here;
  }
  return mean();
}

StepHistogram HistogramOf(const StepTimes& times) {
  StepHistogram histogram;
  for (size_t i = 0; i < StepTimes::kBounds; ++i) histogram.bounds.push_back(StepTimes::Bound(i));
  histogram.counts.assign(times.counts().begin(), times.counts().end());
  histogram.seconds = times.seconds();
  return histogram;
}

StepHistogram Since(const StepHistogram& now, const StepHistogram& before) {
  if (before.counts.size() != now.counts.size()) return now;
  StepHistogram since = now;
  for (size_t i = 0; i < since.counts.size(); ++i) since.counts[i] -= before.counts[i];
  since.seconds -= before.seconds;
  return since;
}

LoadFigures FiguresOf(const LoadRun& run, StepHistogram steps) {
  LoadFigures figures;
  figures.load = run.options();
  figures.duration = run.duration();
  figures.failed = run.failed();
  std::vector<double> ttft, tpot, itl, e2el;
  for (const RequestTimes& request : run.requests()) {
    if (!request.completed) continue;
    const RequestFigures times = FiguresOf(request);
    ++figures.completed;
    figures.input_tokens += request.usage.prompt;
    figures.output_tokens += request.usage.completion;
    figures.cached_tokens += request.usage.cached;
    ttft.push_back(times.ttft);
    e2el.push_back(times.e2el);
    itl.insert(itl.end(), times.itls.begin(), times.itls.end());
    if (request.usage.completion > 1) {
      tpot.push_back((times.e2el - times.ttft) / static_cast<double>(request.usage.completion - 1));
    }
  }
  figures.ttft = QuantilesOf(std::move(ttft));
  figures.tpot = QuantilesOf(std::move(tpot));
  figures.itl = QuantilesOf(std::move(itl));
  figures.e2el = QuantilesOf(std::move(e2el));
  figures.steps = std::move(steps);
  return figures;
}

std::string Describe(const LoadFigures& f, const LoadRun& run) {
  std::string text =
      fmt::format("concurrency {}: {} requests of {} tokens in, {} out, in {:.2f} s; {} failed\n",
                  f.load.max_concurrency, f.load.num_prompts, f.load.input_len, f.load.output_len,
                  f.duration, f.failed);
  if (f.completed > 0) {
    text += fmt::format("{:.2f} requests/s, {:.1f} output tok/s, {:.1f} tok/s in all\n",
                        f.request_throughput(), f.output_throughput(), f.total_throughput());
    text +=
        fmt::format("{:<6} {:>10} {:>10} {:>10} {:>10}\n", "ms", "mean", "median", "p90", "p99");
    for (const NamedQuantiles& row : kQuantiles) {
      const Quantiles& q = f.*row.value;
      if (std::isnan(q.mean)) continue;
      text += fmt::format("{:<6} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", row.label, q.mean,
                          q.median, q.p90, q.p99);
    }
    if (f.steps.count() > 0) {
      text += fmt::format("{:<6} {:>10.2f} {:>10.2f}   {} decode steps of the engine\n", "step",
                          1e3 * f.steps.mean(), 1e3 * f.steps.median(), f.steps.count());
    }
    if (f.cached_tokens > 0) {
      text += fmt::format("{} of {} prompt tokens came from the server's prefix cache\n",
                          f.cached_tokens, f.input_tokens);
    }
  }
  for (const auto& [kind, failure] : run.failures()) {
    text += fmt::format("failed, {}x: {}\n", failure.count, failure.first);
  }
  return text;
}

std::string DescribeSweep(const std::vector<LoadFigures>& runs) {
  const auto known = [](double value, int digits) {
    return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits);
  };
  std::string text =
      fmt::format("{:>11} {:>8} {:>7} {:>10} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9}\n",
                  "concurrency", "requests", "failed", "seconds", "req/s", "out tok/s", "tok/s",
                  "TTFT ms", "TPOT ms", "step ms");
  for (const LoadFigures& f : runs) {
    text += fmt::format(
        "{:>11} {:>8} {:>7} {:>10.2f} {:>9.2f} {:>10.1f} {:>10.1f} {:>9} {:>9} {:>9}\n",
        f.load.max_concurrency, f.load.num_prompts, f.failed, f.duration, f.request_throughput(),
        f.output_throughput(), f.total_throughput(), known(f.ttft.median, 1),
        known(f.tpot.median, 2), f.steps.count() > 0 ? known(1e3 * f.steps.median(), 2) : "-");
  }
  return text + "TTFT, TPOT and step: the median\n";
}

void WriteFields(const LoadFigures& f, const LoadRun& run, bool detailed, serve::JsonWriter& json) {
  json.Field("max_concurrency", f.load.max_concurrency)
      .Field("request_rate", f.load.request_rate)  // infinite: null
      .Field("num_prompts", f.load.num_prompts)
      .Field("input_len", f.load.input_len)
      .Field("output_len", f.load.output_len)
      .Field("duration", f.duration)
      .Field("completed", f.completed)
      .Field("failed", f.failed)
      .Field("total_input_tokens", f.input_tokens)
      .Field("total_output_tokens", f.output_tokens)
      .Field("cached_tokens", f.cached_tokens)
      .Field("request_throughput", f.request_throughput())
      .Field("output_throughput", f.output_throughput())
      .Field("total_token_throughput", f.total_throughput());
  for (const NamedQuantiles& row : kQuantiles) {
    const Quantiles& q = f.*row.value;
    json.Field(fmt::format("mean_{}_ms", row.key), q.mean)
        .Field(fmt::format("median_{}_ms", row.key), q.median)
        .Field(fmt::format("p90_{}_ms", row.key), q.p90)
        .Field(fmt::format("p99_{}_ms", row.key), q.p99);
  }
  json.Field("decode_steps", f.steps.count());
  if (f.steps.count() > 0) {
    json.Field("mean_step_ms", 1e3 * f.steps.mean())
        .Field("median_step_ms", 1e3 * f.steps.median());
  }
  json.Key("failures").BeginArray();
  for (const auto& [kind, failure] : run.failures()) {
    json.BeginObject().Field("what", failure.first).Field("count", failure.count).EndObject();
  }
  json.EndArray();
  if (!detailed) return;
  std::vector<double> ttfts, e2els;
  json.Key("itls").BeginArray();
  for (const RequestTimes& request : run.requests()) {
    if (!request.completed) continue;
    const RequestFigures times = FiguresOf(request);
    ttfts.push_back(times.ttft);
    e2els.push_back(times.e2el);
    json.BeginArray();
    for (const double itl : times.itls) json.Value(itl);
    json.EndArray();
  }
  json.EndArray();
  WriteList("ttfts", ttfts, json);
  WriteList("e2els", e2els, json);
}

}  // namespace seacliff
