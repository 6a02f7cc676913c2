// ReplyParser and PlainReply: tokens to bytes, bytes to text, and the state machine of the text.
#include <algorithm>
#include <utility>

#include "seacliff/text.h"
#include "text/reply_machine.h"
#include "text/specials.h"

namespace seacliff {

struct ReplyParser::State {
  State(const Tokenizer& t, ReplyOptions o)
      : tokenizer(&t), options(std::move(o)), decoder(t), machine(options) {
    think_end = t.SpecialId(SpecialText(SpecialRole::kThinkEnd)).value_or(-1);
    dsml = t.SpecialId(SpecialText(SpecialRole::kDsml)).value_or(-1);
  }

  // Text of tokens, in which tags are marks. One ends an incomplete character before it.
  void Text(const std::string& text) { machine.Text(text, ReplyMachine::Tags::kMarks); }
  void Mark(char mark) { Text(decoder.Finish() + mark); }

  void Token(int32_t id) {
    if (machine.part() == ReplyPart::kReasoning) ++reasoning_tokens;
    const auto& ends = tokenizer->end_ids();
    if (std::binary_search(ends.begin(), ends.end(), id)) {
      if (!options.ignore_end) End();
      return;
    }
    if (id == think_end) return Mark(kThinkEndMark);
    if (id == dsml) return Mark(kDsmlMark);
    // In arguments other added tokens are text as well.
    if (options.skip_special && tokenizer->IsAdded(id) && !machine.in_calls()) return;
    Text(decoder.Feed(id));
  }

  void End() {
    Text(decoder.Finish());
    machine.End();
  }

  bool done() const { return machine.done(); }

  const Tokenizer* tokenizer;
  ReplyOptions options;
  StreamDecoder decoder;
  ReplyMachine machine;
  int32_t think_end, dsml;
  int32_t reasoning_tokens = 0;
};

ReplyParser::ReplyParser(const Tokenizer& tokenizer, ReplyOptions options)
    : state_(std::make_unique<State>(tokenizer, std::move(options))) {}
ReplyParser::ReplyParser(ReplyParser&&) noexcept = default;
ReplyParser& ReplyParser::operator=(ReplyParser&&) noexcept = default;
ReplyParser::~ReplyParser() = default;

std::vector<ReplyDelta> ReplyParser::Feed(int32_t id) {
  if (!state_->done()) state_->Token(id);
  return state_->machine.Take();
}

std::vector<ReplyDelta> ReplyParser::FeedBytes(std::string_view bytes) {
  if (!state_->done()) {
    state_->machine.Text(state_->decoder.FeedBytes(bytes), ReplyMachine::Tags::kText);
  }
  return state_->machine.Take();
}

std::vector<ReplyDelta> ReplyParser::Finish() {
  if (!state_->done()) state_->End();
  return state_->machine.Take();
}

bool ReplyParser::done() const { return state_->done(); }

const std::optional<std::string>& ReplyParser::matched_stop() const {
  return state_->machine.matched_stop();
}

const ReplyCalls& ReplyParser::calls() const { return state_->machine.calls(); }

ReplyPart ReplyParser::part() const { return state_->machine.part(); }

int32_t ReplyParser::reasoning_tokens() const { return state_->reasoning_tokens; }

constexpr auto kNoTags = ReplyMachine::Tags::kNone;

// A completion is text and stop strings only: no tags, no newlines dropped.
struct PlainReply::State {
  State(const Tokenizer& t, std::vector<std::string> s, bool include_stop, bool skip_special)
      : decoder(t, skip_special),
        machine({.continues_message = true, .stop = std::move(s), .include_stop = include_stop},
                /*has_tags=*/false) {}

  std::string Take() {
    std::string text;
    for (ReplyDelta& delta : machine.Take()) text += delta.text;
    return text;
  }

  StreamDecoder decoder;
  ReplyMachine machine;
};

PlainReply::PlainReply(const Tokenizer& tokenizer, std::vector<std::string> stop, bool include_stop,
                       bool skip_special)
    : state_(std::make_unique<State>(tokenizer, std::move(stop), include_stop, skip_special)) {}
PlainReply::PlainReply(PlainReply&&) noexcept = default;
PlainReply& PlainReply::operator=(PlainReply&&) noexcept = default;
PlainReply::~PlainReply() = default;

std::string PlainReply::Feed(int32_t id) {
  state_->machine.Text(state_->decoder.Feed(id), kNoTags);
  return state_->Take();
}

std::string PlainReply::FeedBytes(std::string_view bytes) {
  state_->machine.Text(state_->decoder.FeedBytes(bytes), kNoTags);
  return state_->Take();
}

std::string PlainReply::Finish() {
  state_->machine.Text(state_->decoder.Finish(), kNoTags);
  state_->machine.End();
  return state_->Take();
}

bool PlainReply::done() const { return matched_stop().has_value(); }

const std::optional<std::string>& PlainReply::matched_stop() const {
  return state_->machine.matched_stop();
}

}  // namespace seacliff
