// The state of one call's reply, and the seam behind which an API's wire form stands: OpenAI chat
// and completions today (openai_reply.cc). Forms only write text; they drive nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/api_error.h"
#include "serve/requests.h"
#include "serve/rules.h"
#include "serve/splice.h"

namespace seacliff::serve {

struct Prompt {
  std::vector<int32_t> ids;
  bool starts_in_reasoning = false, continues_message = false;  // as EncodedPrompt's
  std::optional<std::string> echo;                              // the reply begins with it
  uint64_t turn = 0, continues = 0;                             // as Request's
  ReplyPlace place;                                             // of a chat's
};

// What to generate, and how to tell it.
struct GenerationSpec {
  CommonRequest common;
  std::vector<Prompt> prompts;
  bool is_chat = false;  // reasoning is parsed out; stop strings count in the content only
  bool include_reasoning = true;
  // Of a chat: what the request says of tool calls. The rest is filled in for each prompt.
  ReplyOptions reply;
  std::string_view prompt_field = "prompt";  // what errors call the prompt
  SpliceCounts splices;
  RuleSpec rules;
  // Of a chat, for the prompt of its next turn (NextTurn in service.h).
  std::vector<ChatMessage> messages;
  ChatOptions chat;
  bool forgets_reasoning = false;
};

// A stretch of reply of one part, or of an echoed prompt. Tokens are kept only where the client
// wants logprobs or ids; they belong to the text as nearly as held-back text allows.
struct Piece {
  ReplyPart part = ReplyPart::kContent;
  std::string text;
  std::vector<Token> tokens;  // the first of a prompt has NaN as its logprob: none
  int32_t call = -1;          // of a tool call, as ReplyDelta's; -1: only tokens
  std::string name;

  bool has_text() const { return !text.empty() || !name.empty(); }
};

struct Choice {
  int32_t index = 0;
  size_t prompt = 0;  // into GenerationSpec::prompts
  int32_t completion_tokens = 0, reasoning_tokens = 0, cached_tokens = 0;
  std::string reasoning, content;
  std::vector<ChatToolCall> calls;  // once it ended
  std::vector<Token> reasoning_tokens_kept, content_tokens_kept;
  std::vector<int32_t> ids;   // if the client wants them; the end token included
  size_t ids_sent = 0;        // of a stream
  int64_t text_offset = 0;    // characters told so far, for a completion's logprobs
  std::string finish_reason;  // "" while it runs
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_id;
};

struct Usage {
  int64_t prompt = 0, completion = 0, cached = 0, reasoning = 0;
};

struct ReplyState {
  GenerationSpec spec;
  std::string id;           // "chatcmpl-..."
  std::string call_prefix;  // of the ids of tool calls, this reply's own: "call_..."
  std::string model;
  int64_t created = 0;  // seconds since 1970
  std::vector<Choice> choices;
  const Tokenizer* tokenizer = nullptr;

  Usage usage() const;
  bool finished() const;
};

// Each Stream... gives whole server-sent events, or "".
class ReplyForm {
 public:
  virtual ~ReplyForm() = default;
  virtual std::string StreamBegin(ReplyState* state) const = 0;
  virtual std::string StreamPiece(ReplyState* state, Choice* choice, const Piece& piece) const = 0;
  virtual std::string StreamFinish(ReplyState* state, Choice* choice) const = 0;
  virtual std::string StreamEnd(ReplyState* state) const = 0;
  virtual std::string StreamError(const ApiError& error) const = 0;
  // The whole reply of a call that does not stream.
  virtual std::string Whole(ReplyState* state) const = 0;
  // What ids of replies start with: "chatcmpl-".
  virtual std::string_view id_prefix() const = 0;
};

std::unique_ptr<ReplyForm> MakeChatForm();
std::unique_ptr<ReplyForm> MakeCompletionForm();

}  // namespace seacliff::serve
