// The server's thread: it takes calls from http, checks and tokenises them, starts generations and
// feeds them the engine's events. The handlers of the route table are its methods.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/api_error.h"
#include "serve/generation.h"
#include "serve/http.h"
#include "serve/mailbox.h"
#include "serve/metrics.h"
#include "serve/options.h"
#include "serve/requests.h"
#include "serve/routes.h"
#include "serve/workers.h"

namespace seacliff::serve {

// One request on its way through a handler.
struct Call {
  HttpRequest request;
  HttpReply reply;
  std::string id;    // the client's x-request-id, or one of ours
  std::string rest;  // of the path
};

// What the preparation of a prompt needs; constant, so that workers may read it.
struct PromptContext {
  const ServeOptions* options = nullptr;
  const Tokenizer* tokenizer = nullptr;
  ChatProfile profile = ChatProfile::kPreview;
  int32_t max_model_len = 0, vocab_size = 0;
};

struct Prepared {
  ApiError error;
  GenerationSpec spec;
};
Prepared PrepareChat(const PromptContext& context, std::string_view body);
Prepared PrepareCompletion(const PromptContext& context, std::string_view body);
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
  // Ends all generations at once, telling their clients.
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

 private:
  using Clock = std::chrono::steady_clock;
  using Prepare = Prepared (*)(const PromptContext& context, std::string_view body);
  using Compute = ApiError (*)(const PromptContext& context, std::string_view body,
                               std::string* answer);

  bool HasKey(const HttpRequest& request) const;
  ApiError NotNow(const Route& route) const;
  void Answer(Call* call, int status, std::string_view body);
  void Refuse(Call* call, const ApiError& error);
  std::string NewId();
  // Runs `work` here or, for a long body, on a worker; then what it returns, here.
  void Offload(size_t body_size, std::function<std::function<void()>()> work);
  void Generate(Call call, Prepare prepare, std::unique_ptr<ReplyForm> form);
  void StartGeneration(Call call, Prepared prepared, std::unique_ptr<ReplyForm> form);
  void AnswerComputed(Call call, Compute compute);
  void WriteModel(const std::string& name, class JsonWriter* json) const;
  void TakeEvents();
  void Erase(uint64_t key);
  void Tick();
  void CheckStall(Clock::time_point now);
  bool idle() const;

  const ServeOptions options_;
  HttpServer* http_ = nullptr;
  Metrics metrics_;
  PromptContext context_;
  GenerationHost host_;
  int64_t started_;  // seconds since 1970

  std::unordered_map<uint64_t, std::unique_ptr<Generation>> generations_;
  std::unordered_map<RequestId, std::pair<uint64_t, size_t>> requests_;  // generation, choice
  std::vector<Event> events_;
  uint64_t next_key_ = 1;
  uint64_t id_state_;
  size_t offloaded_ = 0;

  bool draining_ = false;
  std::function<void()> drained_;
  bool stalled_ = false;
  uint64_t last_steps_ = 0;
  Clock::time_point last_step_time_;

  std::unique_ptr<Workers> workers_;  // last: its threads use what stands above
};

}  // namespace seacliff::serve
