// The engine: token ids in, token ids out. It knows no text, no HTTP and no JSON.
//
// Thread safety: every method may be called from any thread. Sinks are called on the engine's
// thread, in order for each request, and must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seacliff/progress.h"
#include "seacliff/status.h"

namespace seacliff {

struct SamplingParams {
  float temperature = 1.0f;  // 0 is greedy: the largest logit, the lowest id on a tie
  float top_p = 1.0f;        // (0, 1]
  int32_t top_k = 0;         // 0 or -1: all
  float min_p = 0.0f;        // [0, 1]
  std::optional<uint64_t> seed;
  float repetition_penalty = 1.0f;  // > 0; over prompt and output
  float presence_penalty = 0.0f;    // [-2, 2]; over output
  float frequency_penalty = 0.0f;   // [-2, 2]; over output
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t min_tokens = 0;     // end tokens cannot be chosen before
  int32_t top_logprobs = -1;  // -1: none; n >= 0: the chosen token's and the n best
};

using RequestId = uint64_t;

struct Request {
  RequestId id = 0;  // unique among live requests; Engine::NextId() gives one
  std::vector<int32_t> prompt;
  int32_t max_tokens = 16;
  std::vector<int32_t> stop_token_ids;  // generation ends when one is sampled (EOS included)
  bool ignore_eos = false;              // stop_token_ids are then not looked at
  SamplingParams sampling;
};

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;  // natural log, of the distribution before temperature and truncation
};

struct Token {
  int32_t id = 0;
  float logprob = 0;              // valid when top_logprobs >= 0
  std::vector<TokenLogprob> top;  // best first
};

enum class Finish : int32_t { kNone, kStop, kLength, kCancelled, kError };

// What a step gave one request. The token that ended a request by its id is included.
struct Event {
  RequestId id = 0;
  std::vector<Token> tokens;
  Finish finish = Finish::kNone;
  Status error;               // set with Finish::kError
  int32_t cached_tokens = 0;  // prompt tokens that came from the prefix cache
};

using EventSink = std::function<void(const Event&)>;

struct EngineOptions {
  std::string model_dir;
  std::string load_format = "auto";     // auto | dummy
  std::string numerics = "checkpoint";  // checkpoint | exact
  std::string repack_cache;             // a file that keeps the packed weights; empty: none
  std::string device = "auto";          // auto | cpu | cuda
  std::string kernels;                  // row choices, "op=row,op=row"
  int32_t threads = 0;                  // 0: one per core
  int32_t max_model_len = 0;            // 0: from config.json, at most what the cache holds
  int32_t max_num_seqs = 16;
  int32_t max_num_batched_tokens = 512;
  int64_t kv_cache_memory = 0;  // bytes; 0: chosen from max_num_seqs and max_model_len
  uint64_t seed = 0;            // for requests that bring none, and for dummy weights
};

struct EngineStats {
  int32_t running = 0, waiting = 0;
  double cache_usage = 0;  // pages in use / pages
  int64_t pages = 0;
  uint64_t steps = 0;
  uint64_t prompt_tokens = 0, generated_tokens = 0;
};

class Engine {
 public:
  // Loads the model and starts the step loop. Takes as long as loading takes.
  static Result<std::unique_ptr<Engine>> Load(const EngineOptions& options,
                                              const LoadProgress& progress);
  virtual ~Engine() = default;

  virtual RequestId NextId() = 0;
  // InvalidArgument (code context_length_exceeded in the message) if prompt + 1 > max_model_len or
  // an id is out of range; Exhausted when the waiting queue is full. max_tokens is clamped to the
  // free context.
  virtual Status Submit(Request request, EventSink sink) = 0;
  // Ends a request within one step; its sink gets Finish::kCancelled. Unknown ids are ignored.
  virtual void Cancel(RequestId id) = 0;

  virtual int32_t max_model_len() const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace seacliff
