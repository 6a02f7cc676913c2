// The words themselves. The dash in the MAX text is U+2014.
#include "text/chat_words.h"

#include <fmt/format.h>

#include "text/specials.h"

namespace seacliff {
namespace {

// Named after their first use, in the preview; later checkpoints call the first one "high".
constexpr std::string_view kHighText =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
    "resolve the root cause, rigorously stress-testing your logic against all potential paths, "
    "edge "
    "cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, "
    "considered alternative, and rejected hypothesis to ensure absolutely no assumption is left "
    "unchecked.\n\n";
constexpr std::string_view kMaxText =
    "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
    "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
    "exhaustively decompose the problem into its most fundamental components, trace every causal "
    "chain to its root, and resolve the underlying cause rather than any surface symptom.\n"
    "Do not stop reasoning until you have independently verified the solution from multiple angles "
    "and are certain that no assumption remains unchecked and no error remains undiscovered.\n\n";
static_assert(kHighText.size() == 476 && kMaxText.size() == 528);

constexpr std::string_view kEffort50 =
    "Reasoning Effort: 50 (range 1-100, the higher the value, the more thorough the "
    "reasoning)\n\n";
constexpr std::string_view kEffort75 =
    "Reasoning Effort: 75 (range 1-100, the higher the value, the more thorough the "
    "reasoning)\n\n";
constexpr std::string_view kEffort100 =
    "Reasoning Effort: 100 (range 1-100, the higher the value, the more thorough the "
    "reasoning)\n\n";

// Columns: default, low, high, max.
constexpr std::string_view kEffortPrefix[3][4] = {
    {"", "", "", kHighText},
    {kHighText, "", kHighText, kMaxText},
    {kEffort75, kEffort50, kEffort75, kEffort100},
};

constexpr CallTags kTags = {"tool_calls", "invoke", "parameter"};
constexpr CallTags kTagsV41 = {" calls", " invoke", " parameter"};

}  // namespace

std::string_view EffortPrefix(ChatProfile profile, ChatEffort effort) {
  return kEffortPrefix[static_cast<int>(profile)][static_cast<int>(effort)];
}

const CallTags& CallTagsOf(ChatProfile profile) {
  return profile == ChatProfile::kV41 ? kTagsV41 : kTags;
}

std::string ToolsHead(const CallTags& tags) {
  return fmt::format(
      "## Tools\n\n"
      "You have access to a set of tools to help answer the user's question. You can invoke tools "
      "by writing a \"<{dsml}{block}>\" block like the following:\n\n"
      "<{dsml}{block}>\n"
      "<{dsml}{invoke} name=\"$TOOL_NAME\">\n"
      "<{dsml}{parameter} name=\"$PARAMETER_NAME\" "
      "string=\"true|false\">$PARAMETER_VALUE</{dsml}{parameter}>\n"
      "...\n"
      "</{dsml}{invoke}>\n"
      "<{dsml}{invoke} name=\"$TOOL_NAME2\">\n"
      "...\n"
      "</{dsml}{invoke}>\n"
      "</{dsml}{block}>\n\n"
      "String parameters should be specified as is and set `string=\"true\"`. For all other types "
      "(numbers, booleans, arrays, objects), pass the value in JSON format and set "
      "`string=\"false\"`.\n\n"
      "If thinking_mode is enabled (triggered by {think}), you MUST output your complete reasoning "
      "inside {think}...{end} BEFORE any tool calls or final response.\n\n"
      "Otherwise, output directly after {end} with tool calls or final response.\n\n"
      "### Available Tool Schemas\n\n",
      fmt::arg("dsml", SpecialText(SpecialRole::kDsml)), fmt::arg("block", tags.block),
      fmt::arg("invoke", tags.invoke), fmt::arg("parameter", tags.parameter),
      fmt::arg("think", SpecialText(SpecialRole::kThinkBegin)),
      fmt::arg("end", SpecialText(SpecialRole::kThinkEnd)));
}

}  // namespace seacliff
