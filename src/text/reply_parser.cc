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

  // A tag ends an incomplete character before it.
  void OnTag(ReplyMachine::Tag tag) {
    machine.Text(decoder.Finish(), false);
    machine.OnTag(tag);
  }

  void Token(int32_t id) {
    if (machine.state() == ReplyMachine::State::kReasoning) ++reasoning_tokens;
    const auto& ends = tokenizer->end_ids();
    if (std::binary_search(ends.begin(), ends.end(), id)) {
      if (!options.ignore_end) End();
      return;
    }
    if (id == think_end) return OnTag(ReplyMachine::Tag::kThinkEnd);
    if (id == dsml) return OnTag(ReplyMachine::Tag::kDsml);
    if (options.skip_special && tokenizer->IsAdded(id)) return;
    machine.Text(decoder.Feed(id), false);
  }

  void End() {
    machine.Text(decoder.Finish(), false);
    machine.End();
  }

  bool done() const { return machine.state() == ReplyMachine::State::kDone; }

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
  if (!state_->done()) state_->machine.Text(state_->decoder.FeedBytes(bytes), true);
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

ReplyPart ReplyParser::part() const {
  return state_->machine.state() == ReplyMachine::State::kReasoning ? ReplyPart::kReasoning
                                                                    : ReplyPart::kContent;
}

int32_t ReplyParser::reasoning_tokens() const { return state_->reasoning_tokens; }

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
  state_->machine.Text(state_->decoder.Feed(id), false);
  return state_->Take();
}

std::string PlainReply::FeedBytes(std::string_view bytes) {
  state_->machine.Text(state_->decoder.FeedBytes(bytes), false);
  return state_->Take();
}

std::string PlainReply::Finish() {
  state_->machine.Text(state_->decoder.Finish(), false);
  state_->machine.End();
  return state_->Take();
}

bool PlainReply::done() const { return matched_stop().has_value(); }

const std::optional<std::string>& PlainReply::matched_stop() const {
  return state_->machine.matched_stop();
}

}  // namespace seacliff
