// The engine: token ids in, token ids out. It knows no text, no HTTP and no JSON.
//
// Thread safety: every method may be called from any thread. Sinks are called on the engine's
// thread, in order for each request, and must not block.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "seacliff/progress.h"
#include "seacliff/status.h"
#include "seacliff/step_times.h"

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

// What a request may say next, by a grammar or otherwise. Its calls come on the engine's thread and
// must not throw: Accept for each sampled token that another one may follow, each once and in order
// (a preempted sequence computes its tokens again, but they are not sampled again), then Mask for
// the next one. They come as late as may be, while a device computes the step that needs them.
class TokenRules {
 public:
  virtual ~TokenRules() = default;

  // Bit i % 32 of mask[i / 32]: token i may come next. All are to be written: (vocab_size + 31) /
  // 32 words, of which the last one's bits beyond the vocabulary do not matter. False: every token
  // may, and `mask` is not looked at. Without a bit the request ends with Finish::kError.
  virtual bool Mask(std::span<uint32_t> mask) = 0;
  virtual void Accept(int32_t id) = 0;

  // Nothing may follow what was accepted, not even an end token: the request ends with
  // Finish::kStop. Rules that allow an end token instead need not say so.
  virtual bool done() const { return false; }
  // Not ok: the request, and no other, ends with this error.
  virtual Status error() const { return OkStatus(); }
};

using RequestId = uint64_t;

struct Request {
  RequestId id = 0;  // unique among live requests; Engine::NextId() gives one
  std::vector<int32_t> prompt;
  int32_t max_tokens = 16;
  std::vector<int32_t> stop_token_ids;  // generation ends when one is sampled (EOS included)
  bool ignore_eos = false;              // stop_token_ids are then not looked at
  SamplingParams sampling;
  // n >= 0: of each token of the prompt but the first, its logprob and the n best in its place. The
  // prompt is then computed whole, in steps of as many tokens as there is room for logits.
  int32_t prompt_logprobs = -1;
  // Null: any token may come. Where they leave nothing but tokens that min_tokens forbids, the
  // rules win.
  std::unique_ptr<TokenRules> rules;
  int32_t priority = 0;    // lower ones are served first
  std::string cache_salt;  // cached prefixes are shared among requests with the same one alone
  // Of a conversation, for telling why it lost its prefix: numbers of the messages up to this turn
  // and up to the turn that it goes on from; 0: not known.
  uint64_t turn = 0, continues = 0;
  // Run for what it leaves in the prefix cache: it comes after all others, takes a block of tokens
  // a step, and is counted neither among the requests nor in what they found cached.
  bool background = false;
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
  std::vector<Token> prompt;  // with Request::prompt_logprobs: those of its tokens, in order
  std::vector<Token> tokens;
  Finish finish = Finish::kNone;
  Status error;               // set with Finish::kError
  int32_t cached_tokens = 0;  // prompt tokens that came from the prefix cache; in every event
};

using EventSink = std::function<void(const Event&)>;

struct EngineOptions {
  std::string model_dir;
  std::string load_format = "auto";        // auto | dummy
  std::string numerics = "checkpoint";     // checkpoint | exact
  std::string output_projection = "bf16";  // bf16 | fp8: activations of wo_a
  std::string repack_cache;                // a file that keeps the packed weights; empty: none
  std::string device = "auto";             // auto | cpu | cuda
  std::string kernels;                     // row choices, "op=row,op=row"
  // Ranks that share the model, as many on each of `nodes` hosts, of which this is number
  // `node_rank`; host 0 listens on `rendezvous`, HOST:PORT, and has the engine.
  int32_t tensor_parallel_size = 1, nodes = 1, node_rank = 0;
  std::string rendezvous;
  double rank_timeout = 20;  // seconds that a rank may let the others wait in a step
  std::string nccl_library;  // file of NCCL; empty: libnccl.so.2 where it is installed
  // Rank 0 alone, on one GPU, for measurements: it gets from itself what the others would send.
  bool echo_ranks = false;
  int32_t threads = 0;        // 0: one per core
  int32_t max_model_len = 0;  // 0: from config.json, at most what the cache holds
  int32_t max_num_seqs = 16;
  int32_t max_num_batched_tokens = 512;
  int32_t max_waiting = 1024;  // more are refused
  // Tokens that a prompt may have computed before it gives way to requests that decode; -1: 4,096
  // on a GPU, where short chunks cost as much as long ones, and none on the CPU.
  int32_t long_prefill_token_threshold = -1;
  bool prefix_caching = true;
  // Bytes; 0: on a GPU what gpu_memory_utilization leaves for it, on the CPU from max_num_seqs and
  // max_model_len.
  int64_t kv_cache_memory = 0;
  double gpu_memory_utilization = 0.9;  // part of its memory that may be used
  uint64_t seed = 0;                    // for requests that bring none, and for dummy weights
  // Called once, on the engine's thread, if its device is lost: every request has got the error,
  // Submit gives it from now on, and only a new process can go on.
  std::function<void(const Status&)> on_lost;
};

// Why tokens of a prompt had to be computed although whole blocks of 128 could have been cached.
enum class CacheMiss : int32_t {
  kCold,      // never seen, or long ago
  kEvicted,   // evicted lately
  kSnapshot,  // in the cache, but the last snapshot lies before them
  kSalt,      // seen under another cache_salt
  kTemplate,  // the conversation's earlier turn was encoded in another way
};
inline constexpr size_t kCacheMisses = 5;

struct EngineStats {
  int32_t running = 0, waiting = 0;
  double cache_usage = 0;  // pages that live requests hold / pages
  int64_t pages = 0;
  int64_t free_pages = 0;
  int64_t cached_pages = 0;  // that no live request holds, but the prefix cache
  int64_t snapshots = 0;     // places in the prefix cache that a prompt can be resumed at
  uint64_t steps = 0;        // that have ended
  double host_seconds = 0;   // between steps: from one's last token to the start of the next
  double rules_seconds = 0;  // in TokenRules, while a device computes
  // The step under way is the first of its size, which may take long: kernels are loaded.
  bool first_of_size = false;
  uint64_t prompt_tokens = 0, generated_tokens = 0;  // computed; sampled
  // Of requests let in: prompt tokens, those of them that were cached, and why others were not.
  uint64_t queried_tokens = 0, hit_tokens = 0;
  std::array<uint64_t, kCacheMisses> missed_tokens = {};
  uint64_t lost_prefixes = 0;  // turns that found less than the turn before had left
  uint64_t preemptions = 0, recomputed_tokens = 0;
  uint64_t background_tokens = 0;  // of prompts of background requests, computed
  uint64_t evicted_pages = 0, dropped_snapshots = 0;
  StepTimes decode_steps;  // that carried decodes alone, from the plan to the tokens
};

class Engine {
 public:
  // Loads the model and starts the step loop. Takes as long as loading takes.
  static Result<std::unique_ptr<Engine>> Load(const EngineOptions& options,
                                              const LoadProgress& progress);
  // A host whose node_rank is not 0: computes for node 0, which loads with the same options, until
  // its engine ends (ok) or is gone (kUnavailable).
  static Status Follow(const EngineOptions& options, const LoadProgress& progress);
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
  // What its thread does and the step that is under way, for a log that tells why it hangs.
  virtual std::string Describe() const = 0;
};

}  // namespace seacliff
