// The pre-pass of the chat encoding.
#include "text/chat_turns.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

namespace seacliff {
namespace {

using Role = ChatTurn::Role;

constexpr std::string_view kBlankLine = "\n\n";

constexpr struct {
  const char* word;
  Role role;
} kRoles[] = {{"system", Role::kSystem},
              {"developer", Role::kDeveloper},
              {"user", Role::kUser},
              {"assistant", Role::kAssistant},
              {"latest_reminder", Role::kReminder}};

constexpr struct {
  const char* word;
  SpecialRole role;
} kTasks[] = {{"action", SpecialRole::kTaskAction},       {"query", SpecialRole::kTaskQuery},
              {"authority", SpecialRole::kTaskAuthority}, {"domain", SpecialRole::kTaskDomain},
              {"title", SpecialRole::kTaskTitle},         {"read_url", SpecialRole::kTaskReadUrl}};

void AppendParagraph(std::string_view text, std::string* out) {
  if (text.empty()) return;
  if (!out->empty()) *out += kBlankLine;
  *out += text;
}

// The text of a content that may be a list of parts.
Result<std::string> ContentText(const ChatMessage& message, const std::string& path) {
  if (message.parts.empty()) return message.content;
  std::string text;
  for (size_t i = 0; i < message.parts.size(); ++i) {
    const ChatContentPart& part = message.parts[i];
    if (i > 0) text += kBlankLine;
    if (part.type == "text") {
      text += part.text;
    } else if (message.role == "tool") {
      text += fmt::format("[Unsupported {}]", part.type);
    } else {
      return InvalidArgument(fmt::format("{}.content[{}].type: \"{}\" is not supported, only text",
                                         path, i, part.type));
    }
  }
  return text;
}

// The line of one tool. The reference prints the client's object; checkpoints from 0731 on saw
// exactly three fields, in a fixed order.
Result<std::string> ToolLine(const std::string& tool, ChatProfile profile,
                             const std::string& path) {
  SC_ASSIGN_OR_RETURN(JsonText root, ParseJsonObject(tool, path));
  const JsonText* inner = root.Find("function");
  const JsonText& function =
      inner != nullptr && inner->kind == JsonText::Kind::kObject ? *inner : root;
  const JsonText* name = function.Find("name");
  if (name == nullptr || name->kind != JsonText::Kind::kString) {
    return InvalidArgument(path + ".function.name: must be a string");
  }
  std::string line;
  if (profile == ChatProfile::kPreview) {
    AppendJson(function, &line);
    return line;
  }
  const auto is_null = [](const JsonText* value) {
    return value == nullptr || (value->kind == JsonText::Kind::kLiteral && value->text == "null");
  };
  const auto field = [&](const char* key, const JsonText& absent) {
    const JsonText* value = function.Find(key);
    return JsonMember{key, is_null(value) ? absent : *value};
  };
  JsonText empty_text, empty_object, fixed;
  empty_text.kind = JsonText::Kind::kString;
  empty_object.kind = fixed.kind = JsonText::Kind::kObject;
  fixed.members = {
      {"name", *name}, field("description", empty_text), field("parameters", empty_object)};
  AppendJson(fixed, &line);
  return line;
}

Status AppendTools(const std::vector<std::string>& tools, ChatProfile profile,
                   const std::string& path, std::vector<std::string>* lines) {
  for (size_t i = 0; i < tools.size(); ++i) {
    SC_ASSIGN_OR_RETURN(std::string line,
                        ToolLine(tools[i], profile, fmt::format("{}[{}]", path, i)));
    lines->push_back(std::move(line));
  }
  return OkStatus();
}

Result<std::string> SchemaText(const std::string& json, const std::string& path) {
  if (json.empty()) return std::string();
  SC_ASSIGN_OR_RETURN(const JsonText schema, ParseJsonObject(json, path));
  std::string text;
  AppendJson(schema, &text);
  return text;
}

class TurnMaker {
 public:
  explicit TurnMaker(const ChatOptions& options) : options_(options) {}

  Status Add(const ChatMessage& message, const std::string& path, bool is_last) {
    SC_ASSIGN_OR_RETURN(std::string text, ContentText(message, path));
    if (message.role == "tool") {
      ChatTurn& turn = UserTurn();
      turn.blocks.push_back({std::move(text), true, message.tool_call_id});
      return ReadTask(message, path, &turn);
    }
    const auto* row = std::find_if(std::begin(kRoles), std::end(kRoles),
                                   [&](const auto& r) { return message.role == r.word; });
    if (row == std::end(kRoles)) {
      return InvalidArgument(fmt::format("{}.role: \"{}\" is not a role", path, message.role));
    }
    if (row->role == Role::kUser) {
      if (!turns_.empty() && turns_.back().has_task()) turns_.emplace_back();
      ChatTurn& turn = UserTurn();
      turn.blocks.push_back({std::move(text), false, {}});
      return ReadTask(message, path, &turn);
    }
    ChatTurn turn;
    turn.role = row->role;
    turn.blocks.push_back({std::move(text), false, {}});
    SC_RETURN_IF_ERROR(ReadTask(message, path, &turn));
    SC_RETURN_IF_ERROR(AppendTools(message.tools, options_.profile, path + ".tools", &turn.tools));
    SC_ASSIGN_OR_RETURN(turn.response_format,
                        SchemaText(message.response_format, path + ".response_format"));
    if (turn.role == Role::kDeveloper && turn.blocks[0].text.empty()) {
      return InvalidArgument(path + ".content: must not be empty");
    }
    if (turn.role == Role::kAssistant) {
      SC_RETURN_IF_ERROR(ReadAssistant(message, path, is_last, &turn));
    }
    Append(std::move(turn));
    return OkStatus();
  }

  std::vector<ChatTurn> Take() { return std::move(turns_); }

 private:
  // The user turn at the end, opened if there is none.
  ChatTurn& UserTurn() {
    if (turns_.empty() || turns_.back().role != Role::kUser) turns_.emplace_back();
    return turns_.back();
  }

  static Status ReadTask(const ChatMessage& message, const std::string& path, ChatTurn* turn) {
    if (message.task.empty()) return OkStatus();
    for (const auto& row : kTasks) {
      if (message.task == row.word) {
        turn->task = row.role;
        return OkStatus();
      }
    }
    return InvalidArgument(fmt::format("{}.task: \"{}\" is not a task", path, message.task));
  }

  Status ReadAssistant(const ChatMessage& message, const std::string& path, bool is_last,
                       ChatTurn* turn) const {
    turn->reasoning = message.reasoning;
    turn->has_reasoning = message.has_reasoning || !message.reasoning.empty();
    turn->prefix = message.prefix;
    if (turn->prefix && !is_last) {
      return InvalidArgument(path + ".prefix: only the last message can be continued");
    }
    for (size_t i = 0; i < message.tool_calls.size(); ++i) {
      const ChatToolCall& call = message.tool_calls[i];
      ChatTurn::Call out{call.id, call.name, {}};
      out.arguments.kind = JsonText::Kind::kObject;
      if (!call.arguments.empty() && call.arguments != "null") {
        SC_ASSIGN_OR_RETURN(
            out.arguments,
            ParseJsonObject(call.arguments,
                            fmt::format("{}.tool_calls[{}].function.arguments", path, i)));
      }
      turn->calls.push_back(std::move(out));
    }
    return OkStatus();
  }

  // Leading system messages are one text (V4.1 gives each its header). So are assistant messages in
  // a row, as clients split one reply; but text after a call must not move before it.
  void Append(ChatTurn turn) {
    if (!turns_.empty()) {
      ChatTurn& back = turns_.back();
      const bool leading_system = turns_.size() == 1 && back.role == Role::kSystem &&
                                  turn.role == Role::kSystem &&
                                  options_.profile != ChatProfile::kV41;
      const bool same_reply =
          back.role == Role::kAssistant && turn.role == Role::kAssistant &&
          (back.calls.empty() || (turn.blocks[0].text.empty() && turn.reasoning.empty()));
      if (!back.has_task() && (leading_system || same_reply)) return Fuse(std::move(turn), &back);
    }
    turns_.push_back(std::move(turn));
  }

  static void Fuse(ChatTurn turn, ChatTurn* into) {
    AppendParagraph(turn.blocks[0].text, &into->blocks[0].text);
    AppendParagraph(turn.reasoning, &into->reasoning);
    into->has_reasoning |= turn.has_reasoning;
    std::move(turn.calls.begin(), turn.calls.end(), std::back_inserter(into->calls));
    std::move(turn.tools.begin(), turn.tools.end(), std::back_inserter(into->tools));
    if (!turn.response_format.empty()) into->response_format = std::move(turn.response_format);
    into->task = turn.task;
    into->prefix = turn.prefix;
  }

  const ChatOptions& options_;
  std::vector<ChatTurn> turns_;
};

// The request's tools and response format go to the first system turn.
Status AttachRequest(const ChatOptions& options, std::vector<ChatTurn>* turns) {
  std::vector<std::string> tools;
  SC_RETURN_IF_ERROR(AppendTools(options.tools, options.profile, "tools", &tools));
  SC_ASSIGN_OR_RETURN(std::string format, SchemaText(options.response_format, "response_format"));
  if (tools.empty() && format.empty()) return OkStatus();
  auto system = std::find_if(turns->begin(), turns->end(),
                             [](const ChatTurn& turn) { return turn.role == Role::kSystem; });
  const bool too_late = options.profile == ChatProfile::kV41 && system != turns->begin();
  if (system == turns->end() || too_late) {
    ChatTurn empty;
    empty.role = Role::kSystem;
    empty.blocks.emplace_back();
    system = turns->insert(turns->begin(), std::move(empty));
  }
  std::move(tools.begin(), tools.end(), std::back_inserter(system->tools));
  if (!format.empty()) system->response_format = std::move(format);
  return OkStatus();
}

// Ids do not appear in a prompt: the order is all that links a result to its call.
void SortResults(std::vector<ChatTurn>* turns) {
  std::map<std::string_view, size_t> places;  // of the last calls, by id
  const auto position = [&places](const ChatTurn::Block& block) {
    const auto call = places.find(block.call_id);
    return call == places.end() ? 0 : call->second;
  };
  for (ChatTurn& turn : *turns) {
    if (!turn.calls.empty()) places.clear();
    for (const ChatTurn::Call& call : turn.calls) places.emplace(call.id, places.size());
    if (places.empty() || turn.role != Role::kUser) continue;
    std::vector<ChatTurn::Block> results;
    for (ChatTurn::Block& block : turn.blocks) {
      if (block.is_result) results.push_back(std::move(block));
    }
    std::stable_sort(results.begin(), results.end(),
                     [&](const auto& a, const auto& b) { return position(a) < position(b); });
    auto next = results.begin();
    for (ChatTurn::Block& block : turn.blocks) {
      if (block.is_result) block = std::move(*next++);
    }
  }
}

}  // namespace

Result<std::vector<ChatTurn>> MakeTurns(std::span<const ChatMessage> messages,
                                        const ChatOptions& options) {
  if (messages.empty()) return InvalidArgument("messages: must not be empty");
  TurnMaker maker(options);
  for (size_t i = 0; i < messages.size(); ++i) {
    SC_RETURN_IF_ERROR(
        maker.Add(messages[i], fmt::format("messages[{}]", i), i + 1 == messages.size()));
  }
  std::vector<ChatTurn> turns = maker.Take();
  if (options.continue_final_message) {
    if (turns.back().role != Role::kAssistant) {
      return InvalidArgument(fmt::format(
          "messages[{}].role: only an assistant message can be continued", messages.size() - 1));
    }
    turns.back().prefix = true;
  }
  SC_RETURN_IF_ERROR(AttachRequest(options, &turns));
  SortResults(&turns);
  return turns;
}

}  // namespace seacliff
