// THE table of special tokens: role, text, what it is for. Ids are never written down: they come
// from the tokenizer at hand, by the text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace seacliff {

class Tokenizer;

enum class SpecialRole : int32_t {
  kBeginOfSentence,
  kEndOfSentence,
  kPad,
  kUser,
  kAssistant,
  kSystem,
  kThinkBegin,
  kThinkEnd,
  kDsml,
  kLatestReminder,
  kTaskAction,
  kTaskQuery,
  kTaskAuthority,
  kTaskDomain,
  kTaskTitle,
  kTaskReadUrl,
  kFimHole,
  kFimBegin,
  kFimEnd,
  kCount,
};

struct SpecialToken {
  SpecialRole role;
  const char* name;  // of the role, for people
  const char* text;
  const char* use;
  bool required;    // chat needs it in every profile
  bool ends_reply;  // generation stops at it
};

std::span<const SpecialToken> SpecialTokens();
const char* SpecialText(SpecialRole role);

// Added tokens that no model may write: those whose text begins like one of these.
struct NeverSampled {
  const char* begins_with;
  const char* why;
};
std::span<const NeverSampled> NeverSampledTokens();

// The tables as text, with the ids in `tokenizer`.
std::string PrintSpecials(const Tokenizer& tokenizer);

}  // namespace seacliff
