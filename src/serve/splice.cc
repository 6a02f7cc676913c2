// Finding and remembering sampled turns; see splice.h.
#include "serve/splice.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <span>
#include <utility>

namespace seacliff::serve {
namespace {

// Stands before special tokens; no valid UTF-8 has it.
constexpr char kMark = '\xFF';
constexpr std::string_view kThinkEnd = "</think>";

void AppendSpelling(const Tokenizer& tokenizer, int32_t id, std::string* out) {
  if (tokenizer.IsAdded(id)) *out += kMark;
  *out += tokenizer.TokenBytes(id);
}

// The text of ids, in which special tokens differ from their names in ordinary ones.
std::string Spelling(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string out;
  for (const int32_t id : ids) AppendSpelling(tokenizer, id, &out);
  return out;
}

// The hash of ids that come piece by piece.
class PrefixHash {
 public:
  explicit PrefixHash(uint64_t scope) {
    XXH3_INITSTATE(&state_);
    XXH3_64bits_reset_withSeed(&state_, scope);
  }
  void Add(std::span<const int32_t> ids) {
    XXH3_64bits_update(&state_, ids.data(), ids.size_bytes());
  }
  uint64_t value() const { return XXH3_64bits_digest(&state_); }

 private:
  XXH3_state_t state_;
};

Unspliced ReasonOf(SampledTurns::Miss miss, const ReplySpan& span) {
  if (span.forgot_reasoning) return Unspliced::kReasoning;
  switch (miss) {
    case SampledTurns::Miss::kEdited:
      return Unspliced::kEdited;
    case SampledTurns::Miss::kTemplate:
      return Unspliced::kTemplate;
    case SampledTurns::Miss::kUnknown:
      break;
  }
  return Unspliced::kUnknown;
}

}  // namespace

uint64_t SpliceScope(std::string_view api_key, std::string_view salt) {
  return TurnHash(TurnHash(0, api_key), salt);
}

ReplyPlace SpliceReplies(const Tokenizer& tokenizer, uint64_t scope, SampledTurns& turns,
                         EncodedPrompt* prompt, SpliceCounts* counts) {
  const std::span<const int32_t> encoded = prompt->ids;
  std::vector<int32_t> ids;
  ids.reserve(encoded.size());
  PrefixHash hash(scope);
  size_t at = 0;  // in `encoded`
  const auto take = [&](std::span<const int32_t> more) {
    ids.insert(ids.end(), more.begin(), more.end());
    hash.Add(more);
  };
  ReplyPlace place;
  place.scope = scope;
  for (ReplySpan& span : prompt->replies) {
    take(encoded.subspan(at, span.begin - at));
    at = span.end;
    const std::span<const int32_t> body = encoded.subspan(span.begin, span.end - span.begin);
    span.begin = ids.size();
    // The reply to come goes on with this turn.
    const bool continued = prompt->continues_message && at == encoded.size();
    if (continued) place = {scope, hash.value(), span.begin, true};
    const std::string text = Spelling(tokenizer, body);
    SampledTurns::Found found = turns.Find({hash.value(), TurnHash(scope, text)});
    // Hashes may collide; then the text is another one.
    if (found.ids && Spelling(tokenizer, *found.ids) != text) found = {};
    if (found.ids) {
      ++counts->spliced;
      take(*found.ids);
    } else {
      if (!continued) ++counts->unspliced[static_cast<size_t>(ReasonOf(found.miss, span))];
      take(body);
    }
    span.end = ids.size();
  }
  take(encoded.subspan(at));
  if (!prompt->continues_message) place = {scope, hash.value(), ids.size(), true};
  prompt->ids = std::move(ids);
  return place;
}

bool RememberReply(const Tokenizer& tokenizer, const ReplyPlace& place,
                   const std::vector<int32_t>& prompt, bool starts_in_reasoning,
                   const SampledReply& reply, SampledTurns& turns) {
  if (!place.known) return false;
  std::vector<int32_t> ids(prompt.begin() + static_cast<std::ptrdiff_t>(place.begin), prompt.end());
  const size_t continued = ids.size();
  // How the turn is encoded when it comes back.
  std::string text = Spelling(tokenizer, ids);
  if (starts_in_reasoning) {
    text += reply.reasoning;
    text += kMark;
    text += kThinkEnd;
  }
  text += reply.content;
  ids.insert(ids.end(), reply.ids.begin(), reply.ids.end());
  std::string spelling = Spelling(tokenizer, ids);
  // A stop string was sampled, but is no part of the reply; nor is a block of tool calls.
  std::string token;
  while (ids.size() > continued && spelling.size() > text.size()) {
    token.clear();
    AppendSpelling(tokenizer, ids.back(), &token);
    spelling.resize(spelling.size() - token.size());
    ids.pop_back();
  }
  if (spelling != text) return false;
  turns.Add({place.before, TurnHash(place.scope, text)}, ids);
  return true;
}

}  // namespace seacliff::serve
