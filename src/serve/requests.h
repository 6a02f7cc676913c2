// The bodies of OpenAI requests, checked and in our own types. Parsing knows no tokenizer and no
// engine: prompts stay text here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "seacliff/engine.h"
#include "seacliff/text.h"
#include "serve/api_error.h"
#include "serve/fields.h"
#include "serve/options.h"
#include "serve/rules.h"

namespace seacliff::serve {

// What every kind of generation shares.
struct CommonRequest {
  std::string model;  // "" if the client named none
  bool stream = false;
  bool include_usage = false, continuous_usage = false;
  int32_t n = 1;
  int32_t max_tokens = -1;  // -1: not given; 0, of an echo alone: nothing is generated
  SamplingParams sampling;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool include_stop = false;  // include_stop_str_in_output
  bool return_token_ids = false;
  int32_t priority = 0;
  std::string cache_salt;
  float timeout = 0;       // seconds from its arrival that it may take; 0: any
  std::string request_id;  // the client's; "" if it gave none
  OutputRule output;
  std::string output_appendix;  // what a chat's prompt says about it: JSON text, or ""
};

struct CompletionRequest {
  CommonRequest common;
  // One of the two is filled.
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> ids;
  bool echo = false;
};

struct ChatRequest {
  CommonRequest common;
  std::vector<ChatMessage> messages;
  // The prompt, in place of messages.
  std::vector<int32_t> input_ids;
  ChatOptions chat;  // profile is left alone
  ToolRules tools;
  bool include_reasoning = true;
  bool add_header = true;  // of the reply, at the prompt's end; /tokenize alone can leave it out
};

ApiError ParseCompletionRequest(std::string_view body, const ServeOptions& options,
                                CompletionRequest* request);
ApiError ParseChatRequest(std::string_view body, const ServeOptions& options, ChatRequest* request);

// POST /tokenize: `prompt`, or `messages` with the chat fields.
struct TokenizeRequest {
  std::string model;
  bool is_chat = false;
  std::string prompt;
  bool return_token_strs = false;
  ChatRequest chat;
};
ApiError ParseTokenizeRequest(std::string_view body, const ServeOptions& options,
                              TokenizeRequest* request);

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};
ApiError ParseDetokenizeRequest(std::string_view body, DetokenizeRequest* request);

// Pieces of the above that other kinds of request will use too.
// `least_tokens`: the smallest max_tokens.
void ReadCommon(std::string_view body, Fields* fields, const ServeOptions& options,
                CommonRequest* request, int32_t least_tokens = 1);
// `request->common` is read already.
void ReadChat(std::string_view body, Fields* fields, const ServeOptions& options,
              ChatRequest* request);
// Fit for a header and a log: printable ASCII without spaces, not too long.
bool IsPlainId(std::string_view id);
// A request's body as an object, and what keeps it alive.
struct RequestBody {
  std::string mended;
  std::string_view text;  // what was parsed
  JsonDocument document;
  simdjson::dom::object object;
};
ApiError ParseBody(std::string_view text, RequestBody* body);

}  // namespace seacliff::serve
