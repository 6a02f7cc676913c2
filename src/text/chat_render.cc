// Prompt = begin of sentence, effort prefix, then each turn's body, with a header before each
// reply.
//
// Differences from the reference encoder, which ends some prompts without a header: one is written
// before every assistant turn and at the end wherever none is open.
#include "text/chat_render.h"

#include <algorithm>
#include <utility>

#include "text/chat_words.h"

namespace seacliff {
namespace {

using Role = ChatTurn::Role;

class Renderer {
 public:
  Renderer(std::vector<ChatTurn> turns, const ChatOptions& options)
      : turns_(std::move(turns)),
        options_(options),
        v41_(options.profile == ChatProfile::kV41),
        tags_(CallTagsOf(options.profile)) {
    const bool has_tools = std::any_of(turns_.begin(), turns_.end(),
                                       [](const ChatTurn& turn) { return !turn.tools.empty(); });
    drop_ = options_.drop_thinking && !has_tools;
    last_ = LastRequest();
    if (options_.thinking && drop_) RemoveOldDevelopers();
  }

  RenderedPrompt Render() {
    Special(SpecialRole::kBeginOfSentence);
    const std::string_view effort =
        options_.thinking ? EffortPrefix(options_.profile, options_.effort) : std::string_view();
    const bool begins_with_system = turns_.front().role == Role::kSystem;
    if (v41_ && (begins_with_system || !effort.empty())) Special(SpecialRole::kSystem);
    Template(effort);
    for (size_t i = 0; i < turns_.size(); ++i) {
      Body(i);
      Transition(i);
    }
    if (!header_open_ && !turns_.back().prefix && !turns_.back().has_task()) {
      Header(OpensThinking(turns_.size()));
    }
    prompt_.continues_message = turns_.back().prefix;
    prompt_.forgets_reasoning = options_.thinking && drop_;
    return std::move(prompt_);
  }

 private:
  // Index of the last turn that asks for a reply, -1 if none does.
  int64_t LastRequest() const {
    for (auto i = static_cast<int64_t>(turns_.size()) - 1; i >= 0; --i) {
      const Role role = turns_[i].role;
      if (role == Role::kUser || role == Role::kDeveloper) return i;
      if (v41_ && role == Role::kSystem && i > 0) return i;
    }
    return -1;
  }

  void RemoveOldDevelopers() {
    std::vector<ChatTurn> kept;
    for (size_t i = 0; i < turns_.size(); ++i) {
      const bool old = static_cast<int64_t>(i) < last_ && turns_[i].role == Role::kDeveloper;
      if (!old) kept.push_back(std::move(turns_[i]));
    }
    turns_ = std::move(kept);
    last_ = LastRequest();
  }

  bool AfterTask(size_t i) const { return i > 0 && turns_[i - 1].has_task(); }

  // Whether the reply at turn i (or at the end) begins with <think>.
  bool OpensThinking(size_t i) const {
    if (!options_.thinking) return false;
    if (i < turns_.size() && turns_[i].prefix) return v41_ || turns_[i].has_reasoning;
    return !drop_ || static_cast<int64_t>(i) > last_;
  }

  void Special(SpecialRole role) {
    prompt_.uses[static_cast<size_t>(role)] = true;
    Template(SpecialText(role));
    behind_special_ = true;
  }
  void Template(std::string_view text) { Append(text, true); }
  void Client(std::string_view text) { Append(text, false); }

  void Append(std::string_view text, bool trusted) {
    if (text.empty()) return;
    auto& segments = prompt_.segments;
    if (segments.size() == first_segment_ || segments.back().trusted != trusted) {
      segments.push_back({std::string(), trusted});
    }
    segments.back().text += text;
    behind_special_ = false;
  }

  // What follows goes into segments of its own.
  size_t Cut() { return first_segment_ = prompt_.segments.size(); }

  void Header(bool thinks) {
    Special(SpecialRole::kAssistant);
    Special(thinks ? SpecialRole::kThinkBegin : SpecialRole::kThinkEnd);
    header_open_ = true;
    prompt_.starts_in_reasoning = thinks;
  }

  void Body(size_t i) {
    const ChatTurn& turn = turns_[i];
    if (turn.role == Role::kAssistant) return Assistant(i);
    if (turn.role == Role::kReminder) {
      Special(SpecialRole::kLatestReminder);
      Client(turn.blocks[0].text);
      return;
    }
    header_open_ = false;
    prompt_.starts_in_reasoning = false;
    if (turn.role == Role::kUser) {
      Special(SpecialRole::kUser);
      return Blocks(turn);
    }
    if (turn.role == Role::kDeveloper) Special(SpecialRole::kUser);
    if (turn.role == Role::kSystem && v41_ && i > 0) Special(SpecialRole::kSystem);
    Client(turn.blocks[0].text);
    Appendices(turn);
  }

  void Blocks(const ChatTurn& turn) {
    for (size_t i = 0; i < turn.blocks.size(); ++i) {
      if (i > 0) Template("\n\n");
      if (turn.blocks[i].is_result) Template(kToolResultBegin);
      Client(turn.blocks[i].text);
      if (turn.blocks[i].is_result) Template(kToolResultEnd);
    }
  }

  void Appendices(const ChatTurn& turn) {
    if (!turn.tools.empty()) {
      prompt_.uses[static_cast<size_t>(SpecialRole::kDsml)] = true;
      Template("\n\n");
      Template(ToolsHead(tags_));
      for (size_t i = 0; i < turn.tools.size(); ++i) {
        if (i > 0) Template("\n");
        Client(turn.tools[i]);
      }
      Template(kToolsTail);
    }
    if (!turn.response_format.empty()) {
      Template(kResponseFormatHead);
      Client(turn.response_format);
    }
  }

  void Assistant(size_t i) {
    const ChatTurn& turn = turns_[i];
    const bool thinks = OpensThinking(i) && !AfterTask(i);
    if (!header_open_ && !AfterTask(i)) Header(thinks);
    header_open_ = false;
    if (behind_special_) {
      RenderedReply reply;
      reply.begin = Cut();
      ReplyBody(turn, thinks);
      reply.end = Cut();
      reply.forgot_reasoning =
          options_.thinking && drop_ && !thinks && !turn.prefix && !AfterTask(i);
      for (const ChatTurn::Call& call : turn.calls) {
        AppendCallKey(call.name, call.arguments, &reply.calls);
      }
      prompt_.replies.push_back(std::move(reply));
    } else {
      ReplyBody(turn, thinks);
    }
    if (!turn.prefix) Special(SpecialRole::kEndOfSentence);
  }

  void ReplyBody(const ChatTurn& turn, bool thinks) {
    const std::string& content = turn.blocks[0].text;
    if (thinks) {
      Client(turn.reasoning);
      // Reasoning alone that is to be continued stays open.
      const bool stays_open =
          turn.prefix && content.empty() && turn.calls.empty() && !turn.reasoning.empty();
      if (stays_open) return;
      Special(SpecialRole::kThinkEnd);
    }
    prompt_.starts_in_reasoning = false;
    Client(content);
    if (!turn.calls.empty()) Calls(turn.calls);
  }

  void Tag(std::string_view begin, std::string_view name) {
    Template(begin);
    Special(SpecialRole::kDsml);
    Template(name);
  }

  void Calls(const std::vector<ChatTurn::Call>& calls) {
    Template("\n\n");
    Tag("<", tags_.block);
    Template(">\n");
    for (const ChatTurn::Call& call : calls) {
      Tag("<", tags_.invoke);
      Template(" name=\"");
      Client(call.name);
      Template("\">\n");
      for (size_t i = 0; i < call.arguments.members.size(); ++i) {
        if (i > 0) Template("\n");
        Parameter(call.arguments.members[i]);
      }
      Template("\n");
      Tag("</", tags_.invoke);
      Template(">\n");
    }
    Tag("</", tags_.block);
    Template(">");
  }

  void Parameter(const JsonMember& parameter) {
    const JsonText& value = parameter.value;
    const bool is_string = value.kind == JsonText::Kind::kString;
    std::string text = value.text;
    if (!is_string) {
      text.clear();
      AppendJson(value, &text);
    }
    Tag("<", tags_.parameter);
    Template(" name=\"");
    Client(parameter.key);
    Template(is_string ? "\" string=\"true\">" : "\" string=\"false\">");
    Client(text);
    Tag("</", tags_.parameter);
    Template(">");
  }

  void Transition(size_t i) {
    const ChatTurn& turn = turns_[i];
    const bool is_last = i + 1 == turns_.size();
    if (turn.prefix) return;
    if (!is_last && turns_[i + 1].role != Role::kAssistant &&
        turns_[i + 1].role != Role::kReminder) {
      return;
    }
    if (turn.has_task()) {
      if (turn.task == SpecialRole::kTaskAction) Header(options_.thinking);
      Special(turn.task);
      prompt_.starts_in_reasoning = false;
    } else if (turn.role == Role::kUser || turn.role == Role::kDeveloper) {
      size_t reply = i + 1;
      while (reply < turns_.size() && turns_[reply].role == Role::kReminder) ++reply;
      Header(OpensThinking(reply));
    }
  }

  std::vector<ChatTurn> turns_;
  const ChatOptions& options_;
  const bool v41_;
  const CallTags& tags_;
  bool drop_ = false;
  int64_t last_ = -1;
  bool header_open_ = false;  // nothing but a reminder has come since a reply's header
  bool behind_special_ = false;
  size_t first_segment_ = 0;  // that may be appended to
  RenderedPrompt prompt_;
};

}  // namespace

std::string RenderedPrompt::Text() const {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

RenderedPrompt RenderTurns(std::vector<ChatTurn> turns, const ChatOptions& options) {
  return Renderer(std::move(turns), options).Render();
}

}  // namespace seacliff
