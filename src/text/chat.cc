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
  return EncodedPrompt{tokenizer.EncodeSegments(prompt.segments), prompt.starts_in_reasoning,
                       prompt.continues_message};
}

}  // namespace seacliff
