// The chat request: messages, tools and the several ways of asking for thinking.
#include <fmt/format.h>
#include <simdjson.h>

#include <optional>

#include "serve/requests.h"

namespace seacliff::serve {
namespace {

using simdjson::dom::element;

constexpr std::string_view kRoles[] = {"system",    "developer", "user",
                                       "assistant", "tool",      "latest_reminder"};

// Numbers keep the client's spelling only in the text itself, so tools are cut out of the body
// rather than printed again.
std::vector<std::string> RawElements(std::string_view body, std::string_view key) {
  namespace ondemand = simdjson::ondemand;
  std::vector<std::string> out;
  const simdjson::padded_string padded(body);
  ondemand::parser parser;
  ondemand::document document;
  ondemand::array array;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS) return out;
  if (document[key].get_array().get(array) != simdjson::SUCCESS) return out;
  for (auto item : array) {
    ondemand::object object;
    std::string_view raw;
    if (item.get_object().get(object) != simdjson::SUCCESS) return out;
    if (object.raw_json().get(raw) != simdjson::SUCCESS) return out;
    out.emplace_back(raw);
  }
  return out;
}

void ReadContent(Fields* message, ChatMessage* out) {
  const auto content = message->Find("content");
  if (!content) return;
  std::string_view text;
  if (content->get<std::string_view>().get(text) == simdjson::SUCCESS) {
    out->content = std::string(text);
    return;
  }
  simdjson::dom::array parts;
  if (content->get<simdjson::dom::array>().get(parts) != simdjson::SUCCESS) {
    return message->Fail("content", "must be a string or a list of parts");
  }
  size_t i = 0;
  for (const element item : parts) {
    ChatContentPart part;
    if (item.get<std::string_view>().get(text) == simdjson::SUCCESS) {
      part.text = std::string(text);
    } else {
      auto fields = message->ObjectAt("content", i, item);
      if (!fields) return;
      fields->String("type", &part.type);
      fields->String("text", &part.text);
      if (part.type == "text" && !fields->Has("text")) fields->Fail("text", "is missing");
    }
    out->parts.push_back(std::move(part));
    ++i;
  }
}

void ReadToolCalls(Fields* message, ChatMessage* out) {
  const auto calls = message->Array("tool_calls");
  if (!calls) return;
  size_t i = 0;
  for (const element item : *calls) {
    auto fields = message->ObjectAt("tool_calls", i++, item);
    if (!fields) return;
    ChatToolCall call;
    fields->String("id", &call.id);
    auto function = fields->Object("function");
    if (!function) return fields->Fail("function", "is missing");
    function->String("name", &call.name);
    if (call.name.empty()) function->Fail("name", "is missing");
    // Some clients send the object itself where the API says its text.
    const auto arguments = function->Find("arguments");
    if (arguments && arguments->is_object()) {
      call.arguments = simdjson::minify(*arguments);
    } else {
      function->String("arguments", &call.arguments);
    }
    out->tool_calls.push_back(std::move(call));
  }
}

ChatMessage ReadMessage(Fields* fields) {
  ChatMessage message;
  fields->String("role", &message.role);
  bool known = false;
  for (const std::string_view role : kRoles) known = known || role == message.role;
  if (!known) {
    fields->Fail("role", message.role.empty() ? "is missing"
                                              : fmt::format("\"{}\" is not one of {}", message.role,
                                                            fmt::join(kRoles, ", ")));
  }
  ReadContent(fields, &message);
  fields->String("name", &message.name);
  // Two names for one thing; clients know one or the other.
  for (const char* key : {"reasoning", "reasoning_content"}) {
    if (!fields->Has(key)) continue;
    fields->String(key, &message.reasoning);
    message.has_reasoning = true;
  }
  ReadToolCalls(fields, &message);
  fields->String("tool_call_id", &message.tool_call_id);
  fields->String("task", &message.task);
  fields->Bool("prefix", &message.prefix);
  return message;
}

void ReadMessages(Fields* fields, std::vector<ChatMessage>* messages) {
  const auto list = fields->Array("messages");
  if (!list) return fields->Fail("messages", "is missing");
  if (list->size() == 0) return fields->Fail("messages", "must not be empty");
  size_t i = 0;
  for (const element item : *list) {
    auto message = fields->ObjectAt("messages", i++, item);
    if (!message) return;
    messages->push_back(ReadMessage(&*message));
    if (!fields->ok()) return;
  }
}

void ReadTools(std::string_view body, Fields* fields, ChatOptions* chat) {
  std::string choice = "auto";
  if (const auto found = fields->Find("tool_choice")) {
    if (!found->is_string()) return fields->Fail(NotSupportedYet("tool_choice"));
    fields->String("tool_choice", &choice);
    if (choice == "required") return fields->Fail(NotSupportedYet("tool_choice"));
    if (choice != "auto" && choice != "none") {
      return fields->Fail("tool_choice", "must be \"auto\" or \"none\"");
    }
  }
  const auto tools = fields->Array("tools");
  if (!tools || tools->size() == 0 || choice == "none") return;
  chat->tools = RawElements(body, "tools");
  if (chat->tools.size() != tools->size()) fields->Fail("tools", "must be a list of objects");
}

// Reads an effort's word into `effort`, and its on or off into `thinking`.
void ReadEffort(Fields* fields, std::string_view key, std::optional<bool>* thinking,
                std::optional<ChatEffort>* effort) {
  if (!fields->Has(key)) return;
  std::string word;
  fields->String(key, &word);
  if (!fields->ok()) return;
  const auto choice = ParseChatEffort(word);
  if (!choice.ok()) return fields->Fail(key, choice.status().message());
  *thinking = choice.value().thinking;
  if (choice.value().thinking) *effort = choice.value().effort;
}

// Later assignments win: the server's default, then reasoning_effort, `reasoning`, the template's
// arguments, and `thinking`, which is what the model's own API has.
void ReadThinking(Fields* fields, const ServeOptions& options, ChatOptions* chat) {
  std::optional<bool> thinking;
  std::optional<ChatEffort> effort;
  if (auto reasoning = fields->Object("reasoning")) {
    ReadEffort(&*reasoning, "effort", &thinking, &effort);
    if (reasoning->Has("enabled")) reasoning->Bool("enabled", &thinking.emplace());
  }
  auto arguments = fields->Object("chat_template_kwargs");
  if (arguments) ReadEffort(&*arguments, "reasoning_effort", &thinking, &effort);
  ReadEffort(fields, "reasoning_effort", &thinking, &effort);
  if (arguments) {
    for (const char* key : {"enable_thinking", "thinking"}) {
      if (arguments->Has(key)) arguments->Bool(key, &thinking.emplace());
    }
    arguments->Bool("drop_thinking", &chat->drop_thinking);
  }
  if (auto own = fields->Object("thinking")) {
    std::string type = "enabled";
    own->String("type", &type);
    if (type != "enabled" && type != "disabled" && type != "adaptive") {
      own->Fail("type", "must be \"enabled\", \"disabled\" or \"adaptive\"");
    }
    thinking = type != "disabled";
  }
  chat->thinking = thinking.value_or(options.default_thinking);
  chat->effort = effort.value_or(options.default_effort);
}

void ReadContinuation(Fields* fields, ChatRequest* request) {
  bool add_header = true;
  fields->Bool("add_generation_prompt", &add_header);
  fields->Bool("continue_final_message", &request->chat.continue_final_message);
  if (!add_header && !request->chat.continue_final_message) {
    fields->Fail("add_generation_prompt", "false needs continue_final_message");
  }
}

}  // namespace

void ReadChat(std::string_view body, Fields* fields, const ServeOptions& options,
              ChatRequest* request) {
  ReadMessages(fields, &request->messages);
  ReadTools(body, fields, &request->chat);
  ReadThinking(fields, options, &request->chat);
  ReadContinuation(fields, request);
}

ApiError ParseChatRequest(std::string_view body, const ServeOptions& options,
                          ChatRequest* request) {
  JsonDocument document;
  simdjson::dom::object object;
  ApiError error = ParseBody(body, &document, &object);
  if (error.any()) return error;
  Fields fields(object, "", &error);
  CommonRequest& common = request->common;
  ReadCommon(&fields, options, &common);
  // The newer name wins where both are given.
  fields.Int("max_completion_tokens", 1, std::numeric_limits<int32_t>::max(), &common.max_tokens);
  if (common.max_tokens == 0) common.max_tokens = options.default_max_tokens;
  if (common.max_tokens != 0 && common.sampling.min_tokens > common.max_tokens) {
    fields.Fail("min_tokens", "must not be larger than max_tokens");
  }
  bool logprobs = false;
  int32_t top_logprobs = 0;
  fields.Bool("logprobs", &logprobs);
  fields.Int("top_logprobs", 0, options.max_logprobs, &top_logprobs);
  if (top_logprobs > 0 && !logprobs) fields.Fail("top_logprobs", "needs logprobs to be true");
  common.sampling.top_logprobs = logprobs ? top_logprobs : -1;
  fields.Bool("include_reasoning", &request->include_reasoning);
  ReadChat(body, &fields, options, request);
  return error;
}

}  // namespace seacliff::serve
