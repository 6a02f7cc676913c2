// The chat request: messages, tools and the several ways of asking for thinking.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <optional>
#include <set>

#include "serve/requests.h"

namespace seacliff::serve {
namespace {

using simdjson::dom::element;

constexpr std::string_view kRoles[] = {"system",    "developer", "user",
                                       "assistant", "tool",      "latest_reminder"};
constexpr size_t kMaxTools = 512, kMaxToolName = 128;  // bytes

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
    std::string type = "function";
    fields->String("id", &call.id);
    fields->String("type", &type);
    if (type != "function") fields->Fail("type", "must be \"function\"");
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

// What a call's tag can hold, and clients can match.
bool IsToolName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxToolName &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return c > ' ' && c != 0x7F && c != '"' && c != '<' && c != '>' && c != '\\';
         });
}

// `raw` is the tool as the client spelt it; its numbers go on as they are.
GrammarTool ReadTool(std::string_view raw, Fields* fields) {
  GrammarTool tool;
  std::string type = "function", description;
  fields->String("type", &type);
  if (type != "function") fields->Fail("type", "must be \"function\"");
  const bool is_wrapped = fields->Has("function") || !fields->Has("name");
  std::optional<Fields> inner = is_wrapped ? fields->Object("function") : *fields;
  if (!inner) {
    fields->Fail("function", "is missing");
    return tool;
  }
  inner->String("name", &tool.name);
  if (!IsToolName(tool.name)) {
    inner->Fail("name", fmt::format("must be 1 to {} bytes without spaces, quotes, backslashes or "
                                    "angle brackets",
                                    kMaxToolName));
  }
  inner->String("description", &description);
  inner->Bool("strict", &tool.strict);
  if (inner->Object("parameters")) {
    tool.parameters =
        is_wrapped ? RawJson(raw, {"function", "parameters"}) : RawJson(raw, {"parameters"});
  }
  return tool;
}

void ReadTools(std::string_view body, Fields* fields, ChatRequest* request) {
  const auto list = fields->Array("tools");
  if (!list || list->size() == 0) return;
  if (list->size() > kMaxTools) {
    return fields->Fail("tools", fmt::format("at most {} tools", kMaxTools));
  }
  std::vector<std::string> raw = RawElements(body, "tools");
  std::set<std::string> names;
  size_t i = 0;
  for (const element item : *list) {
    auto one = fields->ObjectAt("tools", i, item);
    if (!one) return;
    if (i >= raw.size()) return fields->Fail("tools", "must be a list of objects");
    GrammarTool tool = ReadTool(raw[i], &*one);
    if (!fields->ok()) return;
    if (!names.insert(tool.name).second) {
      return one->Fail("function.name", fmt::format("\"{}\" is there twice", tool.name));
    }
    request->tools.tools.push_back(std::move(tool));
    ++i;
  }
  request->tools.use = ToolUse::kAuto;
  request->chat.tools = std::move(raw);
}

void ReadToolChoice(Fields* fields, ChatRequest* request) {
  ToolRules& rules = request->tools;
  bool parallel = true;
  fields->Bool("parallel_tool_calls", &parallel);
  rules.one_call = !parallel;
  const auto found = fields->Find("tool_choice");
  if (!found) return;
  if (found->is_string()) {
    std::string choice;
    fields->String("tool_choice", &choice);
    if (choice == "auto") return;
    if (choice == "none") {
      rules = {};
      request->chat.tools.clear();
      return;
    }
    if (choice != "required") {
      return fields->Fail("tool_choice",
                          "must be \"auto\", \"none\", \"required\" or a function's name in an "
                          "object");
    }
  } else {
    auto choice = fields->Object("tool_choice");
    if (!choice) return;
    std::string type;
    choice->String("type", &type);
    if (type != "function") return choice->Fail("type", "must be \"function\"");
    auto function = choice->Object("function");
    if (!function) return choice->Fail("function", "is missing");
    function->String("name", &rules.named);
    const auto is_named = [&](const GrammarTool& tool) { return tool.name == rules.named; };
    if (std::none_of(rules.tools.begin(), rules.tools.end(), is_named)) {
      return function->Fail("name", fmt::format("\"{}\" is not in tools", rules.named));
    }
    rules.one_call = true;
  }
  if (rules.tools.empty()) return fields->Fail("tool_choice", "needs tools");
  rules.use = ToolUse::kRequired;
  if (request->common.output.any()) {
    fields->Fail("tool_choice", fmt::format("a call is no {}, which is asked for too",
                                            request->common.output.field));
  }
}

// What no conversation can have. Ids that match no call are taken: only the order counts.
void CheckMessages(const std::vector<ChatMessage>& messages, Fields* fields) {
  const ChatMessage* reply = nullptr;  // the last one
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const auto fail = [&](const char* key, const char* what) {
      fields->Fail(fmt::format("messages[{}].{}", i, key), what);
    };
    if (message.role == "assistant") {
      reply = &message;
    } else {
      if (!message.tool_calls.empty()) fail("tool_calls", "only an assistant's message has them");
      if (message.prefix) fail("prefix", "only an assistant's message can be continued");
    }
    if (message.role == "tool" && (reply == nullptr || reply->tool_calls.empty())) {
      fail("role", "a tool's message must follow an assistant's with tool_calls");
    }
  }
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

// Later assignments win: the server's default, `reasoning`, reasoning_effort (the template's, then
// the request's), the template's other arguments, and `thinking`, which is what the model's own API
// has.
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

void ReadPrompt(Fields* fields, ChatRequest* request) {
  if (fields->Has("input_ids")) {
    fields->Ints("input_ids", 0, std::numeric_limits<int32_t>::max(), &request->input_ids);
    if (request->input_ids.empty()) fields->Fail("input_ids", "must not be empty");
    if (fields->Has("messages")) fields->Fail("input_ids", "cannot go with messages");
    return;
  }
  ReadMessages(fields, &request->messages);
  if (!fields->ok()) return;
  std::string task;
  fields->String("task", &task);
  if (!task.empty()) {
    ChatMessage& last = request->messages.back();
    if (!last.task.empty() && last.task != task) {
      fields->Fail("task", "the last message has another one");
    }
    last.task = std::move(task);
  }
  CheckMessages(request->messages, fields);
}

void ReadContinuation(Fields* fields, ChatRequest* request) {
  fields->Bool("add_generation_prompt", &request->add_header);
  fields->Bool("continue_final_message", &request->chat.continue_final_message);
  if (request->messages.empty() || !request->common.output.any()) return;
  // What is there already would have to count for the form.
  if (request->chat.continue_final_message) {
    fields->Fail("continue_final_message",
                 fmt::format("cannot go with {}", request->common.output.field));
  } else if (request->messages.back().prefix) {
    fields->Fail(fmt::format("messages[{}].prefix", request->messages.size() - 1),
                 fmt::format("cannot go with {}", request->common.output.field));
  }
}

}  // namespace

void ReadChat(std::string_view body, Fields* fields, const ServeOptions& options,
              ChatRequest* request) {
  ReadPrompt(fields, request);
  request->chat.response_format = request->common.output_appendix;
  ReadTools(body, fields, request);
  ReadToolChoice(fields, request);
  ReadThinking(fields, options, &request->chat);
  ReadContinuation(fields, request);
}

ApiError ParseChatRequest(std::string_view text, const ServeOptions& options,
                          ChatRequest* request) {
  RequestBody body;
  ApiError error = ParseBody(text, &body);
  if (error.any()) return error;
  Fields fields(body.object, "", &error);
  CommonRequest& common = request->common;
  ReadCommon(body.text, &fields, options, &common);
  // The newer name wins where both are given.
  fields.Int("max_completion_tokens", 1, std::numeric_limits<int32_t>::max(), &common.max_tokens);
  if (common.max_tokens < 0 && options.default_max_tokens > 0) {
    common.max_tokens = options.default_max_tokens;
  }
  if (common.max_tokens > 0 && common.sampling.min_tokens > common.max_tokens) {
    fields.Fail("min_tokens", "must not be larger than max_tokens");
  }
  bool logprobs = false;
  int32_t top_logprobs = 0;
  fields.Bool("logprobs", &logprobs);
  fields.Int("top_logprobs", 0, options.max_logprobs, &top_logprobs);
  if (top_logprobs > 0 && !logprobs) fields.Fail("top_logprobs", "needs logprobs to be true");
  common.sampling.top_logprobs = logprobs ? top_logprobs : -1;
  fields.Bool("include_reasoning", &request->include_reasoning);
  bool echo = false;  // vLLM's: the reply begins with the last message
  fields.Bool("echo", &echo);
  if (echo) fields.Fail(NotSupportedYet("echo"));
  ReadChat(body.text, &fields, options, request);
  if (!request->add_header && !request->chat.continue_final_message) {
    fields.Fail("add_generation_prompt", "false needs continue_final_message");
  }
  return error;
}

}  // namespace seacliff::serve
