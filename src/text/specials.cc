// The rows of the special tokens table and its printing.
#include "text/specials.h"

#include <fmt/format.h>

#include <iterator>

#include "base/check.h"
#include "seacliff/text.h"

namespace seacliff {
namespace {

using R = SpecialRole;

// clang-format off
constexpr SpecialToken kSpecials[] = {
    // role             name                 text                         use                                   required  ends reply
    {R::kBeginOfSentence, "begin_of_sentence", "<｜begin▁of▁sentence｜>", "first token of every prompt",          true,  true},
    {R::kEndOfSentence,   "end_of_sentence",   "<｜end▁of▁sentence｜>",   "after each assistant message",         true,  true},
    {R::kPad,             "pad",               "<｜▁pad▁｜>",             "never in a prompt",                    false, false},
    {R::kUser,            "user",              "<｜User｜>",              "before a user or developer message",   true,  true},
    {R::kAssistant,       "assistant",         "<｜Assistant｜>",         "before a reply",                       true,  true},
    {R::kSystem,          "system",            "<｜System｜>",            "before system text (v41 only)",        false, false},
    {R::kThinkBegin,      "think_begin",       "<think>",                 "opens reasoning",                      true,  false},
    {R::kThinkEnd,        "think_end",         "</think>",                "closes reasoning",                     true,  false},
    {R::kDsml,            "dsml",              "｜DSML｜",                "in every tag of a tool call",          false, false},
    {R::kLatestReminder,  "latest_reminder",   "<｜latest_reminder｜>",   "before a reminder message",            false, false},
    {R::kTaskAction,      "task_action",       "<｜action｜>",            "task after the reply's header",        false, false},
    {R::kTaskQuery,       "task_query",        "<｜query｜>",             "task",                                 false, false},
    {R::kTaskAuthority,   "task_authority",    "<｜authority｜>",         "task",                                 false, false},
    {R::kTaskDomain,      "task_domain",       "<｜domain｜>",            "task",                                 false, false},
    {R::kTaskTitle,       "task_title",        "<｜title｜>",             "task, after an assistant message",     false, false},
    {R::kTaskReadUrl,     "task_read_url",     "<｜read_url｜>",          "task",                                 false, false},
    {R::kFimHole,         "fim_hole",          "<｜fim▁hole｜>",          "completion with a suffix",             false, false},
    {R::kFimBegin,        "fim_begin",         "<｜fim▁begin｜>",         "completion with a suffix",             false, false},
    {R::kFimEnd,          "fim_end",           "<｜fim▁end｜>",           "completion with a suffix",             false, false},
};

constexpr NeverSampled kNeverSampled[] = {
    {"<｜▁pad▁｜>",              "padding"},
    {"<｜place▁holder▁",         "unused ids"},
    {"<|place_holder_",          "image spans"},
    {"<｜rl_image_",             "image parts"},
    {"<｜image",                 "image parts"},
    {"<｜deepseek_image｜>",     "image parts"},
    {"<｜table",                 "image parts"},
    {"<｜/table",                "image parts"},
    {"<｜tr｜>",                 "image parts"},
    {"<｜/tr｜>",                "image parts"},
    {"<｜td｜>",                 "image parts"},
    {"<｜/td｜>",                "image parts"},
    {"<｜polygon｜>",            "image parts"},
    {"<｜/polygon｜>",           "image parts"},
    {"<｜point｜>",              "image parts"},
    {"<｜/point｜>",             "image parts"},
    {"<｜box｜>",                "image parts"},
    {"<｜/box｜>",               "image parts"},
    {"<｜ref｜>",                "image parts"},
    {"<｜/ref｜>",               "image parts"},
    {"<｜System｜>",             "a header, not a reply"},
    {"<｜latest_reminder｜>",    "a header, not a reply"},
    {"<｜begin▁sys｜>",          "a header, not a reply"},
    {"<｜end▁sys｜>",            "a header, not a reply"},
};
// clang-format on

static_assert(std::size(kSpecials) == static_cast<size_t>(SpecialRole::kCount));

}  // namespace

std::span<const SpecialToken> SpecialTokens() { return kSpecials; }

const char* SpecialText(SpecialRole role) {
  const SpecialToken& row = kSpecials[static_cast<size_t>(role)];
  SC_CHECK(row.role == role);
  return row.text;
}

std::span<const NeverSampled> NeverSampledTokens() { return kNeverSampled; }

std::string PrintSpecials(const Tokenizer& tokenizer) {
  std::string out = fmt::format("{:<18} {:>7}  {:<24} {}\n", "role", "id", "text", "use");
  for (const SpecialToken& row : kSpecials) {
    const auto id = tokenizer.SpecialId(row.text);
    out += fmt::format("{:<18} {:>7}  {:<24} {}{}{}\n", row.name, id ? std::to_string(*id) : "-",
                       row.text, row.use, row.required ? "; required" : "",
                       row.ends_reply ? "; ends a reply" : "");
  }
  out += "\nnever sampled:\n";
  for (const NeverSampled& row : kNeverSampled) {
    out += fmt::format("{}...  {}\n", row.begins_with, row.why);
  }
  return out;
}

}  // namespace seacliff
