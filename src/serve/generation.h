// One call that generates, from its arrival on. Once it is known what to generate, it submits a
// request to the engine for each choice of each prompt, turns their events into text and writes the
// reply. It knows no API: a ReplyForm does the wording. Belongs to the server's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/http.h"
#include "serve/mailbox.h"
#include "serve/metrics.h"
#include "serve/reply_form.h"
#include "serve/reply_reader.h"

namespace seacliff::serve {

// What generations share; all outlive them.
struct GenerationHost {
  Engine* engine = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const Grammars* grammars = nullptr;
  Metrics* metrics = nullptr;
  std::shared_ptr<Mailbox> mailbox;
  // A reply whose thinking did not end has it as content too.
  bool thinking_is_content = false;
  // Ids that no text path may emit, as biases that forbid them.
  std::vector<std::pair<int32_t, float>> banned;
  // Is told of each reply of a chat that ended, before its client is.
  std::function<void(GenerationSpec* spec, SampledReply reply)> on_reply;
};

class Generation {
 public:
  using Clock = std::chrono::steady_clock;

  // `id` goes with the reply, whatever it is, until the client's own is known. `timeout`, in
  // seconds, holds until the request's is.
  Generation(const GenerationHost* host, std::unique_ptr<ReplyForm> form, HttpReply reply,
             const std::string& id, Clock::time_point arrived, float timeout);
  ~Generation();  // cancels what still runs
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // What to generate; from here on a silent stream is kept alive.
  void Expect(GenerationSpec spec);
  ReplyState& state() { return state_; }
  const ReplyForm& form() const { return *form_; }
  // Submits everything, or nothing and answers with the error. Once; the state is filled in but for
  // its choices.
  bool Submit();
  bool submitted() const { return !ids_.empty(); }
  const std::vector<RequestId>& ids() const { return ids_; }  // by choice

  void OnEvent(size_t choice, const Event& event);
  // Ends what has run for too long; keeps a silent stream alive with a comment.
  void Tick(Clock::time_point now, Clock::duration keep_alive);
  // Ends it from our side, telling the client.
  void Fail(const ApiError& error);
  // Nothing is left to do; the reply is written, or nobody waits for it.
  bool done() const { return done_; }
  HttpReply& reply() { return reply_; }

 private:
  struct Run {
    ReplyReader reader;
    std::vector<Piece> pending;
    std::vector<Token> prompt;  // of an echo, if its logprobs are wanted
    SampledReply sampled;       // of a chat
    Clock::time_point first_token, last_token;
  };

  void AddChoices();
  ReplyReader MakeReader(const Prompt& prompt) const;
  Request MakeRequest(const Choice& choice) const;
  bool IsEnd(int32_t id) const;
  void TakePrompt(size_t i, const Event& event);
  void TakeToken(size_t i, const Token& token, bool is_end);
  void AppendDeltas(size_t i, std::vector<ReplyDelta> deltas);
  void AppendCall(size_t i, ReplyDelta delta);
  Piece& PendingPiece(size_t i, ReplyPart part);
  void FinishChoice(size_t i, const Event& event);
  void FinishCalls(size_t i);
  std::string Emit(size_t i, bool all);
  void CountTokens(size_t i, const Event& event, int32_t tokens);
  void CountFinished(size_t i, Outcome outcome);
  void BeginStream();
  bool wants_tokens() const { return state_.spec.common.sampling.top_logprobs >= 0; }

  const GenerationHost* host_;
  std::unique_ptr<ReplyForm> form_;
  HttpReply reply_;
  HttpHeaders headers_;
  ReplyState state_;
  std::vector<Run> runs_;  // by choice
  std::vector<RequestId> ids_;
  Clock::time_point arrived_, last_write_;
  bool begun_ = false;  // the stream's first frames are written
  bool done_ = false;
};

}  // namespace seacliff::serve
