// Arrivals and records of a load.
#include "tools/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/random.h"

namespace seacliff {
namespace {

using Clock = LoadRun::Clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

std::vector<int32_t> RandomPrompt(uint64_t seed, uint64_t index, int64_t len, int64_t vocab_size) {
  std::mt19937_64 random(RandomBits(seed, index, Draw::kSeed));
  std::vector<int32_t> ids(static_cast<size_t>(len));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
  return ids;
}

LoadRun::LoadRun(const LoadOptions& options)
    : options_(options), requests_(static_cast<size_t>(options.num_prompts)) {
  if (options_.max_concurrency == 0) options_.max_concurrency = options_.num_prompts;
  if (std::isinf(options_.request_rate)) return;
  std::mt19937_64 random(options_.seed);
  std::exponential_distribution<double> pause(options_.request_rate);
  double at = 0;
  for (int64_t i = 0; i < options_.num_prompts; ++i) {
    due_.push_back(at);
    at += pause(random);
  }
}

std::optional<size_t> LoadRun::Next(Clock::time_point now) {
  if (!start_) start_ = now;
  if (next_ == requests_.size() || running() >= options_.max_concurrency) return std::nullopt;
  if (!due_.empty() && seconds(now) < due_[next_]) return std::nullopt;
  requests_[next_].sent = seconds(now);
  return next_++;
}

Clock::time_point LoadRun::next_due() const {
  if (next_ == requests_.size() || running() >= options_.max_concurrency || due_.empty()) {
    return Clock::time_point::max();
  }
  const auto wait = std::chrono::duration<double>(due_[next_]);
  // Rounded up: a timer that rings early would ring again and again.
  return *start_ + std::chrono::ceil<Clock::duration>(wait);
}

std::vector<int32_t> LoadRun::Prompt(size_t request) const {
  return RandomPrompt(options_.seed, request, options_.input_len, options_.vocab_size);
}

void LoadRun::Chunk(size_t request, Clock::time_point now) {
  requests_[request].chunks.push_back(seconds(now));
  ++chunks_;
}

void LoadRun::End(size_t request, const TokenUsage& usage, Clock::time_point now) {
  const int64_t in = options_.input_len, out = options_.output_len;
  if (usage.prompt != in) {
    return Fail(request, "prompt",
                fmt::format("usage.prompt_tokens is {}, {} were sent", usage.prompt, in), now);
  }
  if (usage.completion != out) {
    return Fail(request, usage.completion < out ? "short" : "long",
                fmt::format("{} output: usage.completion_tokens is {}, {} were asked for",
                            usage.completion < out ? "short" : "long", usage.completion, out),
                now);
  }
  if (requests_[request].chunks.empty()) {
    return Fail(request, "empty", "the stream has no choices", now);
  }
  requests_[request].usage = usage;
  requests_[request].completed = true;
  Ended(now);
}

void LoadRun::Fail(size_t request, const std::string& kind, std::string what,
                   Clock::time_point now) {
  requests_[request].completed = false;
  Failure& failure = failures_[kind];
  if (failure.count++ == 0) failure.first = std::move(what);
  Ended(now);
}

void LoadRun::Ended(Clock::time_point now) {
  ++ended_;
  duration_ = seconds(now);
}

double LoadRun::seconds(Clock::time_point now) const { return start_ ? Seconds(now - *start_) : 0; }

int64_t LoadRun::failed() const {
  int64_t sum = 0;
  for (const auto& [kind, failure] : failures_) sum += failure.count;
  return sum;
}

}  // namespace seacliff
