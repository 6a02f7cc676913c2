// Fuzz target: replies, from bytes and from ids. The input is one byte of options, one that says
// how to cut, up to three stop strings that end with a 0 byte, and the reply. However it is cut it
// must give the same, and where nothing interferes that is what a few lines here say. A tool call
// is told as delivered if and only if its deltas are JSON text.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seacliff/text.h"
#include "tests/fuzz/fuzz.h"
#include "text/json_text.h"
#include "text/testing_tokenizer.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

constexpr std::string_view kMarker = "｜DSML｜";

const Tokenizer& TheTokenizer() {
  static const Tokenizer tokenizer = testing_tokenizer::Make();
  return tokenizer;
}

using Calls = std::vector<std::pair<std::string, std::string>>;

struct Outcome {
  std::string reasoning, content;
  std::optional<std::string> stop;
  Calls streamed = {};
  bool cut = false, whole = false;
  bool operator==(const Outcome&) const = default;
};

// Keeps what comes out, and checks each piece of it.
class Keeper {
 public:
  void operator()(const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      FUZZ_REQUIRE(utf8::IsValid(delta.text) && utf8::IsValid(delta.name));
      Calls& calls = outcome.streamed;
      if (delta.part == ReplyPart::kToolCall) {
        const bool begins = calls.size() == static_cast<size_t>(delta.call);
        if (begins) calls.emplace_back(delta.name, "");
        FUZZ_REQUIRE(calls.size() == static_cast<size_t>(delta.call) + 1);
        FUZZ_REQUIRE(begins ? delta.text.empty() : delta.name.empty() && !delta.text.empty());
        calls.back().second += delta.text;
        continue;
      }
      FUZZ_REQUIRE(!delta.text.empty() && calls.empty());
      const bool is_reasoning = delta.part == ReplyPart::kReasoning;
      FUZZ_REQUIRE(!is_reasoning || outcome.content.empty());
      (is_reasoning ? outcome.reasoning : outcome.content) += delta.text;
    }
  }
  Outcome outcome;
};

// Ends the reply; it must then stay as it is.
Outcome End(ReplyParser* parser, Keeper* keeper) {
  (*keeper)(parser->Finish());
  FUZZ_REQUIRE(parser->done());
  FUZZ_REQUIRE(parser->Feed('a').empty() && parser->FeedBytes("a").empty());
  FUZZ_REQUIRE(parser->Finish().empty());
  keeper->outcome.stop = parser->matched_stop();
  const ReplyCalls& calls = parser->calls();
  Calls delivered, complete;
  for (const ChatToolCall& call : calls.delivered) {
    delivered.emplace_back(call.name, call.arguments);
    FUZZ_REQUIRE(!CallsKey(calls.delivered).empty());
  }
  for (const auto& call : keeper->outcome.streamed) {
    if (ParseJsonValue(call.second)) complete.push_back(call);
  }
  FUZZ_REQUIRE(delivered == complete);
  keeper->outcome.cut = calls.cut;
  keeper->outcome.whole = calls.whole;
  return keeper->outcome;
}

// Pieces of 1 to 8 bytes by the bits of `seed`; all at once for 0.
size_t NextCut(uint32_t* seed, size_t left) {
  if (*seed == 0) return left;
  *seed = *seed * 1664525 + 1013904223;
  return std::min<size_t>(left, 1 + (*seed >> 29));
}

Outcome OfBytes(std::string_view reply, const ReplyOptions& options, uint32_t seed) {
  ReplyParser parser(TheTokenizer(), options);
  Keeper keeper;
  while (!reply.empty()) {
    const bool was_done = parser.done();
    const size_t cut = NextCut(&seed, reply.size());
    const auto deltas = parser.FeedBytes(reply.substr(0, cut));
    FUZZ_REQUIRE(!was_done || deltas.empty());
    keeper(deltas);
    reply.remove_prefix(cut);
  }
  FUZZ_REQUIRE(keeper.outcome.content.find(kMarker) == std::string::npos);
  return End(&parser, &keeper);
}

Outcome OfIds(const std::vector<int32_t>& ids, const ReplyOptions& options) {
  ReplyParser parser(TheTokenizer(), options);
  Keeper keeper;
  for (const int32_t id : ids) {
    const bool was_done = parser.done();
    const auto deltas = parser.Feed(id);
    FUZZ_REQUIRE(!was_done || deltas.empty());
    keeper(deltas);
  }
  FUZZ_REQUIRE(parser.reasoning_tokens() <= static_cast<int32_t>(ids.size()));
  return End(&parser, &keeper);
}

// The text up to the stop string that ends first, the longest of those that end together.
Outcome Stopped(std::string text, const ReplyOptions& options) {
  Outcome outcome;
  for (size_t end = 1; end <= text.size() && !outcome.stop; ++end) {
    for (const std::string& stop : options.stop) {
      if (stop.empty() || !utf8::IsValid(stop)) continue;
      if (!std::string_view(text).substr(0, end).ends_with(stop)) continue;
      if (!outcome.stop || stop.size() > outcome.stop->size()) outcome.stop = stop;
    }
    if (outcome.stop) text.resize(options.include_stop ? end : end - outcome.stop->size());
  }
  outcome.content = std::move(text);
  return outcome;
}

// Nothing in it may be a tool call.
bool HasNoCalls(std::string_view text) {
  return text.find(kMarker) == text.npos && text.find("|DSML|") == text.npos;
}

// What a reply of whole text must give; nothing where a tag stands in the content.
std::optional<Outcome> Expected(std::string text, const ReplyOptions& options) {
  const auto drop_newlines = [&text] { text.erase(0, text.find_first_not_of('\n')); };
  constexpr std::string_view kEnd = "</think>";
  if (!HasNoCalls(text)) return std::nullopt;
  if (!options.continues_message) drop_newlines();
  std::string reasoning;
  if (options.starts_in_reasoning) {
    const size_t end = text.find(kEnd);
    reasoning = text.substr(0, end);
    if (end == text.npos) return Outcome{std::move(reasoning), "", {}};
    reasoning.erase(reasoning.find_last_not_of('\n') + 1);
    text.erase(0, end + kEnd.size());
    drop_newlines();
  }
  if (text.find(kEnd) != text.npos) return std::nullopt;
  Outcome outcome = Stopped(std::move(text), options);
  outcome.reasoning = std::move(reasoning);
  return outcome;
}

// Tags that were left out hide no stop string. Refused calls are content that is not looked at, and
// where a tag's text came together a part of it was taken out.
void CheckStops(const std::string& content, const ReplyOptions& options) {
  if (options.include_stop || options.known_names || content.find("DSML") != content.npos) return;
  for (const std::string& stop : options.stop) {
    FUZZ_REQUIRE(stop.empty() || content.find(stop) == content.npos);
  }
}

// Two bytes an id, beyond the vocabulary too.
std::vector<int32_t> Ids(std::string_view bytes) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    const int id = static_cast<uint8_t>(bytes[i]) << 8 | static_cast<uint8_t>(bytes[i + 1]);
    ids.push_back(id % (TheTokenizer().vocab_size() + 4) - 2);
  }
  return ids;
}

void CheckIds(const std::vector<int32_t>& ids, const ReplyOptions& options) {
  const Tokenizer& tokenizer = TheTokenizer();
  const Outcome outcome = OfIds(ids, options);
  CheckStops(outcome.content, options);
  // Without added tokens there are no tags: all is one part.
  std::vector<int32_t> ordinary;
  for (const int32_t id : ids) {
    if (!tokenizer.IsAdded(id)) ordinary.push_back(id);
  }
  std::string text = utf8::ReplaceInvalid(tokenizer.Decode(ordinary));
  if (!HasNoCalls(text)) return;
  if (!options.continues_message) text.erase(0, text.find_first_not_of('\n'));
  Outcome expected;
  if (options.starts_in_reasoning) {
    expected.reasoning = std::move(text);
  } else {
    expected = Stopped(std::move(text), options);
  }
  FUZZ_REQUIRE(OfIds(ordinary, options) == expected);
  if (ordinary == ids) FUZZ_REQUIRE(outcome == expected);
}

void CheckPlain(std::string_view reply, const std::vector<int32_t>& ids,
                const ReplyOptions& options, uint32_t seed) {
  PlainReply of_bytes(TheTokenizer(), options.stop, options.include_stop, options.skip_special);
  std::string text;
  for (std::string_view rest = reply; !rest.empty();) {
    const size_t cut = NextCut(&seed, rest.size());
    text += of_bytes.FeedBytes(rest.substr(0, cut));
    rest.remove_prefix(cut);
  }
  text += of_bytes.Finish();
  const Outcome expected = Stopped(utf8::ReplaceInvalid(reply), options);
  FUZZ_REQUIRE(text == expected.content && of_bytes.matched_stop() == expected.stop);

  PlainReply of_ids(TheTokenizer(), options.stop, options.include_stop, options.skip_special);
  text.clear();
  for (const int32_t id : ids) text += of_ids.Feed(id);
  text += of_ids.Finish();
  const Outcome whole =
      Stopped(utf8::ReplaceInvalid(TheTokenizer().Decode(ids, options.skip_special)), options);
  FUZZ_REQUIRE(text == whole.content && of_ids.matched_stop() == whole.stop);
}

}  // namespace
}  // namespace seacliff

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seacliff;  // NOLINT: one function
  fuzz::Choices input(data, size);
  const uint8_t flags = input.Byte(), seed = input.Byte();
  ReplyOptions options;
  options.starts_in_reasoning = (flags & 1) != 0;
  options.continues_message = (flags & 2) != 0;
  options.include_stop = (flags & 4) != 0;
  options.skip_special = (flags & 8) == 0;
  options.ignore_end = (flags & 16) != 0;
  options.deliver_calls = (flags & 32) != 0;
  options.one_call = options.deliver_calls && seed % 8 == 1;
  options.known_names = options.deliver_calls && seed % 8 == 2;
  options.starts_in_calls = options.deliver_calls && seed % 8 == 3;
  options.tools = {{"f", R"({"properties": {"s": {"type": "string"}, "n": {"type": "integer"},
      "o": {"type": "object"}}, "required": ["s"]})"}};
  for (int stops = flags >> 6; stops > 0; --stops) options.stop.emplace_back(input.Word());
  const std::string_view reply = input.rest();

  const Outcome whole = OfBytes(reply, options, 0);
  CheckStops(whole.content, options);
  FUZZ_REQUIRE(OfBytes(reply, options, seed + 1U) == whole);
  ReplyParser by_byte(TheTokenizer(), options);
  Keeper keeper;
  for (const char byte : reply) keeper(by_byte.FeedBytes({&byte, 1}));
  FUZZ_REQUIRE(End(&by_byte, &keeper) == whole);
  const auto expected =
      options.starts_in_calls ? std::nullopt : Expected(utf8::ReplaceInvalid(reply), options);
  FUZZ_REQUIRE(!expected || whole == *expected);

  const std::vector<int32_t> ids = Ids(reply);
  if (!options.starts_in_calls) CheckIds(ids, options);
  CheckPlain(reply, ids, options, seed);
  return 0;
}
