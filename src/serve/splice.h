// Turns of a conversation as they were sampled: what comes back from a client is looked up among
// the turns that this server has sampled, and the prompt gets their ids; what has been sampled is
// put there. The store is sampled_turns.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/text.h"
#include "serve/sampled_turns.h"

namespace seacliff::serve {

// Why a turn of a prompt has the ids that its text is encoded to.
enum class Unspliced : int32_t {
  kUnknown,    // not sampled here, or forgotten
  kEdited,     // another turn was sampled there
  kTemplate,   // it was sampled, but what stands before it is encoded otherwise now
  kReasoning,  // the encoding drops its reasoning
};
inline constexpr std::array<const char*, 4> kUnsplicedNames = {"unknown", "edited", "template",
                                                               "reasoning"};

struct SpliceCounts {
  uint64_t spliced = 0;
  std::array<uint64_t, kUnsplicedNames.size()> unspliced = {};  // by Unspliced

  void Add(const SpliceCounts& other) {
    spliced += other.spliced;
    for (size_t i = 0; i < unspliced.size(); ++i) unspliced[i] += other.unspliced[i];
  }
};

// Whose turns are found: those of the same API key and cache_salt.
uint64_t SpliceScope(std::string_view api_key, std::string_view salt);

// The place of the reply to a prompt.
struct ReplyPlace {
  uint64_t scope = 0;
  uint64_t before = 0;  // hash of the ids before it
  size_t begin = 0;     // its first id: the prompt's end, but for messages that are continued
  bool known = false;   // false: nothing that is sampled there can be found again
};

// Puts sampled ids in the place of turns of the same text and of calls that are equal as JSON, and
// moves the spans of the others with them. The text of a prompt does not change but for the
// spelling of calls, and outside of calls special tokens stand where they stood.
ReplyPlace SpliceReplies(const Tokenizer& tokenizer, uint64_t scope, SampledTurns& turns,
                         EncodedPrompt* prompt, SpliceCounts* counts);

// A reply that has ended by itself or at its length.
struct SampledReply {
  size_t prompt = 0;               // of the generation
  std::vector<int32_t> ids;        // without the token that ended it
  std::string reasoning, content;  // what the client got
  std::vector<ChatToolCall> calls;
  bool whole_calls = false;  // ReplyCalls::whole
};

// Remembers a reply to a prompt, up to where its text ends. False, and nothing is remembered, if
// its text is not what the client's copy of it will be encoded to, so that the ids could not be
// used again: newlines around the reasoning, a character cut in half, calls that are not as the
// model should write them.
bool RememberReply(const Tokenizer& tokenizer, const ReplyPlace& place,
                   const std::vector<int32_t>& prompt, bool starts_in_reasoning,
                   const SampledReply& reply, SampledTurns& turns);

}  // namespace seacliff::serve
