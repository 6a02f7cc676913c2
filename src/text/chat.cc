// EncodeChat: messages -> turns -> segments -> ids.
#include <fmt/format.h>

#include "base/status.h"
#include "seacliff/text.h"
#include "text/chat_render.h"
#include "text/chat_turns.h"
#include "text/specials.h"

namespace seacliff {

Result<EncodedPrompt> EncodeChat(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                                 const ChatOptions& options) {
  SC_ASSIGN_OR_RETURN(std::vector<ChatTurn> turns, MakeTurns(messages, options));
  const RenderedPrompt prompt = RenderTurns(std::move(turns), options);
  for (const SpecialToken& row : SpecialTokens()) {
    const bool needed = row.required || prompt.uses[static_cast<size_t>(row.role)];
    if (needed && !tokenizer.SpecialId(row.text)) {
      return InvalidArgument(
          fmt::format("the model's tokenizer has no token {}, which is {}", row.text, row.use));
    }
  }
  EncodedPrompt encoded;
  encoded.starts_in_reasoning = prompt.starts_in_reasoning;
  encoded.continues_message = prompt.continues_message;
  encoded.forgets_reasoning = prompt.forgets_reasoning;
  // Nothing joins over a special token, so the parts have the ids of the whole.
  size_t at = 0;
  const auto encode_up_to = [&](size_t end) {
    const std::vector<int32_t> ids =
        tokenizer.EncodeSegments(std::span(prompt.segments).subspan(at, end - at));
    encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
    at = end;
    return encoded.ids.size();
  };
  for (const RenderedReply& reply : prompt.replies) {
    ReplySpan span;
    span.begin = encode_up_to(reply.begin);
    span.end = encode_up_to(reply.end);
    span.forgot_reasoning = reply.forgot_reasoning;
    span.calls = reply.calls;
    encoded.replies.push_back(std::move(span));
  }
  encode_up_to(prompt.segments.size());
  return encoded;
}

}  // namespace seacliff
