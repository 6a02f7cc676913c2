// The server's thread: it takes calls from http, checks and tokenises them, starts generations and
// feeds them the engine's events. The handlers of the route table are its methods.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/api_error.h"
#include "serve/generation.h"
#include "serve/http.h"
#include "serve/idle_prefill.h"
#include "serve/known_grammars.h"
#include "serve/mailbox.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/requests.h"
#include "serve/routes.h"
#include "serve/sampled_turns.h"
#include "serve/splice.h"
#include "serve/watchdog.h"
#include "serve/workers.h"

namespace seacliff::serve {

// One request on its way through a handler.
struct Call {
  HttpRequest request;
  HttpReply reply;
  std::string id;    // the client's x-request-id, or one of ours
  std::string rest;  // of the path
};

// What the preparation of a prompt needs; constant but for the turns, which lock themselves, so
// that workers may use it.
struct PromptContext {
  const ServeOptions* options = nullptr;
  const Tokenizer* tokenizer = nullptr;
  ChatProfile profile = ChatProfile::kPreview;
  int32_t max_model_len = 0, vocab_size = 0;
  SampledTurns* turns = nullptr;
};

struct Prepared {
  ApiError error;
  GenerationSpec spec;
};
// `api_key`: the request's, if keys are asked for.
Prepared PrepareChat(const PromptContext& context, std::string_view body, std::string_view api_key);
Prepared PrepareCompletion(const PromptContext& context, std::string_view body,
                           std::string_view api_key);
// The beginning of the prompt that the conversation's next turn will have: all up to the end of
// this reply. Empty if it is cached already, as prompt and reply are.
std::vector<int32_t> NextTurn(const PromptContext& context, GenerationSpec spec,
                              const SampledReply& reply);
// The reply's body, or the error.
ApiError AnswerTokenize(const PromptContext& context, std::string_view body, std::string* answer);
ApiError AnswerDetokenize(const PromptContext& context, std::string_view body, std::string* answer);

class Service {
 public:
  explicit Service(ServeOptions options);
  ~Service();

  // Called once, before any request.
  void Start(HttpServer* http);

  // Everything below belongs to the server's thread.
  void Attach(Engine* engine, const Tokenizer* tokenizer, ChatProfile profile);
  void Handle(HttpRequest request, HttpReply reply);
  // `drained` is called once no call is left.
  void Drain(std::function<void()> drained);
  // Ends all calls at once, telling their clients.
  void CancelAll();

  void ChatCompletions(Call call);
  void Completions(Call call);
  void ListModels(Call call);
  void GetModel(Call call);
  void Tokenize(Call call);
  void Detokenize(Call call);
  void Health(Call call);
  void MetricsPage(Call call);
  void Version(Call call);
  void Load(Call call);

 private:
  using Clock = std::chrono::steady_clock;
  using Prepare = Prepared (*)(const PromptContext& context, std::string_view body,
                               std::string_view api_key);
  using Compute = ApiError (*)(const PromptContext& context, std::string_view body,
                               std::string* answer);

  std::optional<std::string> KeyOf(const HttpRequest& request) const;
  ApiError NotNow(const Route& route) const;
  size_t preparing() const;
  EngineStats Stats() const;
  ApiError QueueFull(size_t more);
  void Answer(Call* call, int status, std::string_view body);
  void Refuse(Call* call, const ApiError& error);
  std::string NewId();
  // Does `work` here or, for a long body, on a worker, unless `caller` is gone; then `then`, here.
  void Offload(std::weak_ptr<const void> caller, size_t body_size, std::function<void()> work,
               std::function<void()> then);
  void Generate(Call call, Prepare prepare, std::unique_ptr<ReplyForm> form);
  void TakePrompt(uint64_t key, Prepared prepared);
  void Compile(uint64_t key);
  void StartGeneration(uint64_t key);
  void AnswerComputed(Call call, Compute compute);
  void WriteModel(const std::string& name, class JsonWriter* json) const;
  void TakeEvents();
  void OnReply(GenerationSpec* spec, SampledReply reply);
  void Fail(uint64_t key, const ApiError& error);
  void Erase(uint64_t key);
  void Tick();
  void OnStall(const std::optional<std::string>& reason);
  void BeginProbe();
  void CheckProbe(Clock::time_point now);
  void TakeProbe(const Event& event);
  void EndProbe(const std::string& failure);
  void FailAll(const ApiError& error);
  bool idle() const;

  const ServeOptions options_;
  HttpServer* http_ = nullptr;
  Metrics metrics_;
  PromptContext context_;
  GenerationHost host_;
  int64_t started_;  // seconds since 1970

  // Workers see by its pointer whether a call is still there, and nothing else of it.
  std::unordered_map<uint64_t, std::shared_ptr<Generation>> generations_;
  std::unordered_map<uint64_t, std::shared_ptr<Call>> computed_;  // answered by AnswerComputed
  std::unordered_map<RequestId, std::pair<uint64_t, size_t>> requests_;  // generation, choice
  SampledTurns turns_;
  std::shared_ptr<const Grammars> grammars_;  // shared with compilations
  KnownGrammars known_grammars_;
  IdlePrefill idle_prefill_;
  std::vector<Event> events_;
  uint64_t next_key_ = 1;
  uint64_t id_state_;

  bool draining_ = false;
  std::function<void()> drained_;
  std::string stalled_;  // why, while the engine is

  // The proof of life under way: a request for one token, and who waits for it.
  std::optional<RequestId> probe_;
  std::vector<Call> probe_calls_;
  uint64_t probe_tokens_ = 0;  // generated before it
  Clock::time_point probe_deadline_;

  std::unique_ptr<Watchdog> watchdog_;
  // Last: their threads use what stands above.
  std::unique_ptr<Workers> text_, compile_;
};

}  // namespace seacliff::serve
