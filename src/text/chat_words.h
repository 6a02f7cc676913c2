// The fixed words of the chat template (encoding.md 2.1 to 2.5, 2.8), byte for byte. No logic.
#pragma once

#include <string>
#include <string_view>

#include "seacliff/text.h"

namespace seacliff {

// Stands before the first message in thinking mode; empty where the profile has none for `effort`.
std::string_view EffortPrefix(ChatProfile profile, ChatEffort effort);

// The names in the tags of tool calls: V4.1 has a space before each and a shorter block name.
struct CallTags {
  std::string_view block, invoke, parameter;
};
const CallTags& CallTagsOf(ChatProfile profile);

// Before and after the list of tools, one line each. The head begins at "## Tools".
std::string ToolsHead(const CallTags& tags);
inline constexpr std::string_view kToolsTail =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool "
    "calls.\n";

inline constexpr std::string_view kResponseFormatHead =
    "\n\n## Response Format:\n\n"
    "You MUST strictly adhere to the following schema to reply:\n";

inline constexpr std::string_view kToolResultBegin = "<tool_result>";
inline constexpr std::string_view kToolResultEnd = "</tool_result>";

}  // namespace seacliff
