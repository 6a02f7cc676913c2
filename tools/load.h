// The load of a serving benchmark, without the way it is sent: random prompts, when each request
// may go out, and what came back when. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace seacliff {

struct LoadOptions {
  int64_t input_len = 512, output_len = 128;  // tokens of each prompt and of each reply
  int64_t num_prompts = 1;
  int64_t max_concurrency = 0;  // requests under way at once; 0: all
  // Requests a second on average, in a Poisson process; infinite: as soon as concurrency allows.
  double request_rate = std::numeric_limits<double>::infinity();
  int64_t vocab_size = 0;
  uint64_t seed = 0;  // of ids and pauses
};

// `len` random ids below `vocab_size`: the same for the same arguments, others for another index.
std::vector<int32_t> RandomPrompt(uint64_t seed, uint64_t index, int64_t len, int64_t vocab_size);

// What a server says that it read and wrote.
struct TokenUsage {
  int64_t prompt = 0, completion = 0;
  int64_t cached = 0;  // of the prompt, from a prefix cache
};

// One request, in seconds since the start of its run.
struct RequestTimes {
  double sent = 0;
  std::vector<double> chunks;  // when each part of the reply came
  TokenUsage usage;
  bool completed = false;
};

// One kind of failure.
struct Failure {
  int64_t count = 0;
  std::string first;  // in words, of the first one
};

class LoadRun {
 public:
  using Clock = std::chrono::steady_clock;

  explicit LoadRun(const LoadOptions& options);

  // The next request that may go out now; it is under way from then on. Call until it gives none.
  std::optional<size_t> Next(Clock::time_point now);
  // When Next may give one although none has ended; never: the clock's maximum.
  Clock::time_point next_due() const;

  std::vector<int32_t> Prompt(size_t request) const;
  void Chunk(size_t request, Clock::time_point now);
  // The reply is complete. Failures: usage that is not what was asked for, or no chunk at all.
  void End(size_t request, const TokenUsage& usage, Clock::time_point now);
  // `kind` groups failures, `what` says it in words.
  void Fail(size_t request, const std::string& kind, std::string what, Clock::time_point now);

  bool done() const { return ended_ == options_.num_prompts; }
  int64_t ended() const { return ended_; }
  int64_t running() const { return static_cast<int64_t>(next_) - ended_; }
  int64_t chunks() const { return chunks_; }
  double seconds(Clock::time_point now) const;   // since the first request
  double duration() const { return duration_; }  // up to the last end so far
  const LoadOptions& options() const { return options_; }
  const std::vector<RequestTimes>& requests() const { return requests_; }
  const std::map<std::string, Failure>& failures() const { return failures_; }
  int64_t failed() const;

 private:
  void Ended(Clock::time_point now);

  LoadOptions options_;
  std::vector<RequestTimes> requests_;
  std::vector<double> due_;  // seconds since the start; empty: at once
  std::map<std::string, Failure> failures_;
  size_t next_ = 0;
  int64_t ended_ = 0, chunks_ = 0;
  std::optional<Clock::time_point> start_;
  double duration_ = 0;
};

}  // namespace seacliff
