// Rules of encoding.md 3.2 for reasoning, answer and stop strings.
#include "text/reply_machine.h"

#include <algorithm>
#include <utility>

#include "text/specials.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

// Stops that are not valid UTF-8 can never match, but could hold back half a character.
std::vector<std::string> UsableStops(std::vector<std::string> stops) {
  std::erase_if(stops,
                [](const std::string& stop) { return stop.empty() || !utf8::IsValid(stop); });
  return stops;
}

// In the order of Tag.
std::vector<std::string> TagTexts() {
  return {SpecialText(SpecialRole::kThinkEnd), std::string("<") + SpecialText(SpecialRole::kDsml)};
}

}  // namespace

ReplyMachine::ReplyMachine(const ReplyOptions& options, bool has_tags)
    : state_(options.starts_in_reasoning ? State::kReasoning : State::kAnswer),
      has_tags_(has_tags),
      drop_newlines_(!options.continues_message),
      tags_(TagTexts()),
      stop_texts_(UsableStops(options.stop)),
      stops_(stop_texts_),
      include_stop_(options.include_stop) {}

void ReplyMachine::Text(std::string_view text, bool find_tags) {
  for (const char byte : text) {
    if (state_ == State::kTools || state_ == State::kDone) return;
    Byte(byte, find_tags);
  }
}

void ReplyMachine::Byte(char byte, bool find_tags) {
  if (drop_newlines_ && byte == '\n') return;
  drop_newlines_ = false;
  pending_ += byte;
  if (state_ == State::kAnswer && stops_.Feed(byte)) {
    matched_stop_ = stop_texts_[stops_.match()];
    if (!include_stop_) pending_.resize(pending_.size() - matched_stop_->size());
    Release(0);
    state_ = State::kDone;
    return;
  }
  if (!find_tags) {
    tags_.Reset();
  } else if (tags_.Feed(byte)) {
    const size_t tag = tags_.match();
    tags_.Reset();
    tag_prefix_ = 0;
    // OnTag expects the bracket of a tool call in the text.
    const size_t bracket = tag == static_cast<size_t>(Tag::kDsml) ? 1 : 0;
    pending_.resize(pending_.size() - TagTexts()[tag].size() + bracket);
    OnTag(static_cast<Tag>(tag));
    return;
  }
  TrackTag(byte, find_tags);
  const size_t held = has_tags_ ? tag_prefix_ + newlines_ : 0;
  Release(state_ == State::kAnswer ? std::max(held, stops_.depth()) : held);
}

// A tag begins with the only '<' in it, so its beginning grows byte by byte or starts anew.
void ReplyMachine::TrackTag(char byte, bool find_tags) {
  const size_t prefix = find_tags ? tags_.depth() : (byte == '<' ? 1 : 0);
  if (byte == '\n') {
    newlines_ = tag_prefix_ == 0 ? newlines_ + 1 : 1;
  } else if (prefix != tag_prefix_ + 1) {
    newlines_ = 0;
  }
  tag_prefix_ = prefix;
}

void ReplyMachine::OnTag(Tag tag) {
  if (state_ == State::kTools || state_ == State::kDone) return;
  if (tag == Tag::kThinkEnd) {
    drop_newlines_ = state_ == State::kReasoning;
    if (state_ == State::kReasoning) {
      EndReasoning();
    } else {
      // A stray one is not there at all; the bytes of its text are forgotten.
      stops_.Reset();
      for (const char byte : pending_) stops_.Feed(byte);
    }
    return;
  }
  drop_newlines_ = false;
  if (!pending_.ends_with('<')) return;
  pending_.pop_back();
  EndReasoning();
  state_ = State::kTools;
}

// Newlines before a tag belong to it.
void ReplyMachine::EndReasoning() {
  while (pending_.ends_with('\n')) pending_.pop_back();
  Release(0);
  tag_prefix_ = newlines_ = 0;
  state_ = State::kAnswer;
}

void ReplyMachine::End() {
  if (state_ == State::kDone) return;
  if (state_ != State::kTools) Release(0);
  state_ = State::kDone;
}

void ReplyMachine::Release(size_t keep) {
  const size_t count = pending_.size() - std::min(keep, pending_.size());
  if (count == 0) return;
  const ReplyPart part = state_ == State::kReasoning ? ReplyPart::kReasoning : ReplyPart::kContent;
  if (deltas_.empty() || deltas_.back().part != part) deltas_.push_back({part, std::string()});
  deltas_.back().text.append(pending_, 0, count);
  pending_.erase(0, count);
}

std::vector<ReplyDelta> ReplyMachine::Take() { return std::exchange(deltas_, {}); }

}  // namespace seacliff
