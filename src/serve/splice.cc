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

// How a block of calls is encoded, and what of a turn stands before it.
constexpr std::string_view kBeforeCalls = "\n\n", kCallsBegin = "<\xFF｜DSML｜";
std::string_view BeforeCalls(std::string_view spelling) {
  return spelling.substr(0, spelling.find(kCallsBegin));
}

// Whether a sampled turn has this text, and then calls as all may be written.
bool SaysBeforeCalls(std::string_view spelling, std::string_view text) {
  const std::string_view before = BeforeCalls(spelling);
  return before.size() < spelling.size() && before.starts_with(text) &&
         before.find_first_not_of('\n', text.size()) == before.npos;
}

bool IsTurn(const Tokenizer& tokenizer, const SampledTurns::Found& found, std::string_view text,
            std::string_view calls) {
  const std::string spelling = Spelling(tokenizer, *found.ids);
  return found.calls == calls &&
         (calls.empty() ? spelling == text : SaysBeforeCalls(spelling, text));
}

// What a turn is found by. Its calls come back in the client's JSON.
uint64_t TurnKey(uint64_t scope, std::string_view text, std::string_view calls) {
  const uint64_t hash = TurnHash(scope, text);
  return calls.empty() ? hash : TurnHash(hash, calls);
}

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
    std::string text = Spelling(tokenizer, body);
    if (!span.calls.empty()) text.resize(BeforeCalls(text).size() - kBeforeCalls.size());
    SampledTurns::Found found = turns.Find({hash.value(), TurnKey(scope, text, span.calls)});
    // Hashes may collide; then the turn is another one.
    if (found.ids && !IsTurn(tokenizer, found, text, span.calls)) found = {};
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
  const std::string calls = CallsKey(reply.calls);
  if (!reply.calls.empty() && (!reply.whole_calls || calls.empty())) return false;
  ids.insert(ids.end(), reply.ids.begin(), reply.ids.end());
  std::string spelling = Spelling(tokenizer, ids);
  if (!calls.empty()) {
    if (!SaysBeforeCalls(spelling, text)) return false;
    turns.Add({place.before, TurnKey(place.scope, text, calls)}, ids, calls);
    return true;
  }
  // A stop string was sampled, but is no part of the reply; nor is a block of unwanted calls.
  std::string token;
  while (ids.size() > continued && spelling.size() > text.size()) {
    token.clear();
    AppendSpelling(tokenizer, ids.back(), &token);
    spelling.resize(spelling.size() - token.size());
    ids.pop_back();
  }
  if (spelling != text) return false;
  turns.Add({place.before, TurnKey(place.scope, text, "")}, ids);
  return true;
}

}  // namespace seacliff::serve
