// Turns to the text of a prompt, in segments that say who wrote them (encoding.md 2.2). Ids are not
// its business: EncodeChat (seacliff/text.h) hands the segments to the tokenizer.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "seacliff/text.h"
#include "text/chat_turns.h"
#include "text/specials.h"

namespace seacliff {

// The body of an assistant's turn (ReplySpan), as segments.
struct RenderedReply {
  size_t begin = 0, end = 0;
  bool forgot_reasoning = false;
  std::string calls;  // as ReplySpan's
};

struct RenderedPrompt {
  std::vector<TextSegment> segments;  // trusted: words of the template
  std::vector<RenderedReply> replies;
  std::array<bool, static_cast<size_t>(SpecialRole::kCount)> uses{};  // special tokens in it
  bool starts_in_reasoning = false;
  bool continues_message = false;
  bool forgets_reasoning = false;

  std::string Text() const;
};

RenderedPrompt RenderTurns(std::vector<ChatTurn> turns, const ChatOptions& options);

}  // namespace seacliff
