// Messages as a client sends them to turns as the template renders them: checked, tool results
// fused into user turns and put in the order of their calls (encoding.md 2.4), tools attached. No
// text of the template is written here.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "seacliff/text.h"
#include "text/json_text.h"
#include "text/specials.h"

namespace seacliff {

struct ChatTurn {
  enum class Role { kSystem, kDeveloper, kUser, kAssistant, kReminder };
  struct Block {
    std::string text;
    bool is_result = false;  // of a tool
    std::string call_id;
  };
  struct Call {
    std::string id, name;
    JsonText arguments;  // an object
  };

  Role role = Role::kUser;
  std::vector<Block> blocks;  // only a user turn has more or less than one
  std::string reasoning;
  bool has_reasoning = false;
  std::vector<Call> calls;
  SpecialRole task = SpecialRole::kCount;  // kCount: none
  bool prefix = false;                     // the reply continues this turn
  std::vector<std::string> tools;          // one line each, as printed
  std::string response_format;             // as printed; "" if none

  bool has_task() const { return task != SpecialRole::kCount; }
};

// A call's part of a CallsKey (seacliff/text.h).
void AppendCallKey(std::string_view name, JsonText arguments, std::string* out);

Result<std::vector<ChatTurn>> MakeTurns(std::span<const ChatMessage> messages,
                                        const ChatOptions& options);

}  // namespace seacliff
