// Rules of encoding.md 3.2 for reasoning, answer and stop strings, and where calls begin.
#include "text/reply_machine.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace seacliff {
namespace {

using Opening = ReplyCallReader::Opening;

// Stops that are not valid UTF-8 can never match, but could hold back half a character.
std::vector<std::string> UsableStops(std::vector<std::string> stops) {
  std::erase_if(stops,
                [](const std::string& stop) { return stop.empty() || !utf8::IsValid(stop); });
  return stops;
}

constexpr std::string_view kMarker = "｜DSML｜", kPipe = "｜";

bool IsMark(char byte) { return byte == kThinkEndMark || byte == kDsmlMark; }

}  // namespace

std::vector<ReplyMachine::Pattern> ReplyMachine::Patterns(bool of_text, bool plain) {
  using Kind = Pattern::Kind;
  const std::string end = of_text ? "</think>" : std::string(1, kThinkEndMark);
  const std::string marker = of_text ? std::string(kMarker) : std::string(1, kDsmlMark);
  std::vector<Pattern> patterns = {{end, Kind::kThinkEnd},
                                   {marker, Kind::kStrayMarker},
                                   {"<" + marker, Kind::kCalls, Opening::kMarker},
                                   {"<｜" + marker, Kind::kCalls, Opening::kMisspelt}};
  if (plain) {
    for (const char* text : {"<|DSML|", "<||DSML|"}) {
      patterns.push_back({text, Kind::kCalls, Opening::kPlain});
    }
  }
  return patterns;
}

PatternWatcher ReplyMachine::Watcher(const std::vector<Pattern>& patterns) {
  std::vector<std::string> texts;
  for (const Pattern& pattern : patterns) texts.push_back(pattern.text);
  return PatternWatcher(texts);
}

ReplyMachine::ReplyMachine(const ReplyOptions& options, bool has_tags)
    : options_(options),
      tools_(options.deliver_calls ? options.tools : std::vector<ReplyTool>()),
      has_tags_(has_tags),
      state_(options.starts_in_reasoning ? State::kReasoning : State::kAnswer),
      drop_newlines_(!options.continues_message),
      of_text_(Patterns(true, !tools_.empty())),
      of_tokens_(Patterns(false, !tools_.empty())),
      text_tags_(Watcher(of_text_)),
      token_tags_(Watcher(of_tokens_)),
      stop_texts_(UsableStops(options.stop)),
      stops_(stop_texts_),
      content_markers_({std::string(kMarker)}) {
  if (!options.starts_in_calls) return;
  state_ = State::kCalls;
  calls_open_ = true;
  reader_ = std::make_unique<ReplyCallReader>(options_, &tools_, Opening::kForced);
}

ReplyPart ReplyMachine::part() const {
  if (in_calls()) return ReplyPart::kToolCall;
  const State state = state_ == State::kCalls ? before_calls_ : state_;
  return state == State::kReasoning ? ReplyPart::kReasoning : ReplyPart::kContent;
}

void ReplyMachine::Text(std::string_view text, Tags tags) {
  for (const char byte : text) Byte(byte, tags);
}

void ReplyMachine::Byte(char byte, Tags tags) {
  if (state_ == State::kCalls) return CallByte(byte, tags);
  if (state_ == State::kAfter) return AfterByte(byte);
  if (state_ == State::kDone) return;
  if (drop_newlines_ && byte == '\n') return;
  drop_newlines_ = false;
  const size_t stop_prefix = stops_.depth();
  if (!IsMark(byte)) {
    pending_ += byte;
    if (state_ == State::kAnswer && stops_.Feed(byte)) {
      matched_stop_ = stop_texts_[stops_.match()];
      if (!options_.include_stop) pending_.resize(pending_.size() - matched_stop_->size());
      Release(0);
      state_ = State::kDone;
      return;
    }
  }
  size_t prefix = 0;
  if (tags != Tags::kNone) {
    const bool is_text = tags_are_text_ = tags == Tags::kText;
    PatternWatcher& watcher = is_text ? text_tags_ : token_tags_;
    (is_text ? token_tags_ : text_tags_).Reset();
    if (watcher.Feed(byte)) {
      const Pattern& pattern = (is_text ? of_text_ : of_tokens_)[watcher.match()];
      watcher.Reset();
      const bool counts = pattern.opening != Opening::kPlain || state_ == State::kAnswer;
      if (counts) return OnPattern(pattern);
    }
    prefix = watcher.depth();
  }
  TrackTag(byte, prefix, stop_prefix);
  const size_t held = has_tags_ ? tag_prefix_ + std::max(newlines_, stop_prefix_) : 0;
  Release(state_ == State::kAnswer ? std::max(held, stops_.depth()) : held);
}

// A tag begins with the only byte of its kind, so its beginning grows byte by byte or starts anew.
void ReplyMachine::TrackTag(char byte, size_t prefix, size_t stop_prefix) {
  if (byte == '\n') {
    newlines_ = tag_prefix_ == 0 ? newlines_ + 1 : 1;
  } else if (prefix != tag_prefix_ + 1) {
    newlines_ = 0;
  }
  if (prefix < 2) stop_prefix_ = prefix == 0 ? 0 : stop_prefix;
  tag_prefix_ = prefix;
}

void ReplyMachine::OnPattern(const Pattern& pattern) {
  const size_t marks = IsMark(pattern.text.back()) ? 1 : 0;
  pending_.resize(pending_.size() - (pattern.text.size() - marks));
  tag_prefix_ = 0;
  if (pattern.kind == Pattern::Kind::kThinkEnd && state_ == State::kReasoning) {
    EndReasoning();
    drop_newlines_ = true;
    return;
  }
  if (pattern.kind == Pattern::Kind::kCalls) return BeginCalls(pattern);
  ForgetTag();
}

// A stray tag is not there at all. Stop strings are looked for in the content alone.
void ReplyMachine::ForgetTag() {
  stops_.Reset();
  if (state_ != State::kAnswer) return;
  for (const char byte : pending_) stops_.Feed(byte);
}

void ReplyMachine::BeginCalls(const Pattern& pattern) {
  before_calls_ = state_;
  state_ = State::kCalls;
  plain_tag_ = pattern.opening == Opening::kPlain ? pattern.text : "";
  reader_ = std::make_unique<ReplyCallReader>(options_, &tools_, pattern.opening);
}

void ReplyMachine::CallByte(char byte, Tags tags) {
  const bool find_tags = tags == Tags::kText;
  if (calls_open_) {
    reader_->Feed(byte, find_tags, &deltas_, &calls_);
    return OnCallState({});
  }
  // Nothing may come out of it before the text that is held.
  std::vector<ReplyDelta> deltas;
  const bool taken = reader_->Feed(byte, find_tags, &deltas, &calls_);
  OnCallState(std::move(deltas));
  if (!taken) Byte(byte, tags);
}

void ReplyMachine::OnCallState(std::vector<ReplyDelta> deltas) {
  using ReaderState = ReplyCallReader::State;
  const ReaderState state = reader_->state();
  if (state == ReaderState::kOpening) return;
  if (state == ReaderState::kNoBlock) {
    state_ = before_calls_;
    ForgetTag();
    Text(plain_tag_ + reader_->rest(), Tags::kNone);
    return;
  }
  if (!options_.deliver_calls) {  // the block is left out, and the text goes on behind it
    if (state == ReaderState::kOpen) return;
    DropNewlines();
    state_ = before_calls_;
    ForgetTag();
    return;
  }
  if (!calls_open_) {
    state_ = before_calls_;
    EndReasoning();
    state_ = State::kCalls;
    calls_open_ = true;
    std::move(deltas.begin(), deltas.end(), std::back_inserter(deltas_));
  }
  if (state == ReaderState::kClosed) state_ = State::kAfter;
  if (state == ReaderState::kEnough) state_ = options_.ignore_end ? State::kAfter : State::kDone;
}

// The end token is to come. Where something else does, it is not waited for.
void ReplyMachine::AfterByte(char byte) {
  if (byte == '\n' || byte == ' ' || options_.ignore_end) return;
  calls_.whole = false;
  state_ = State::kDone;
}

// Newlines before a tag belong to it.
void ReplyMachine::DropNewlines() {
  while (pending_.ends_with('\n')) pending_.pop_back();
  newlines_ = 0;
}

void ReplyMachine::EndReasoning() {
  DropNewlines();
  Release(0);
  tag_prefix_ = 0;
  content_markers_.Reset();
  state_ = State::kAnswer;
}

void ReplyMachine::End() {
  if (state_ == State::kCalls) {
    std::vector<ReplyDelta> deltas;
    reader_->End(calls_open_ ? &deltas_ : &deltas, &calls_);
    // Only the beginning of a tag came, so the newlines are its own.
    if (!calls_open_ && plain_tag_.empty()) DropNewlines();
    OnCallState(std::move(deltas));
  }
  if (state_ == State::kReasoning || state_ == State::kAnswer) Release(0);
  state_ = State::kDone;
}

void ReplyMachine::Release(size_t keep) {
  const size_t count = pending_.size() - std::min(keep, pending_.size());
  if (count == 0) return;
  const ReplyPart part = state_ == State::kReasoning ? ReplyPart::kReasoning : ReplyPart::kContent;
  if (deltas_.empty() || deltas_.back().part != part) deltas_.push_back({part, std::string()});
  std::string& text = deltas_.back().text;
  for (const char byte : std::string_view(pending_).substr(0, count)) {
    text += byte;
    // Around tags that were taken out, text may come to spell the marker.
    if (!tags_are_text_ || !content_markers_.Feed(byte)) continue;
    text.resize(text.size() - kPipe.size());
    content_markers_.Reset();
    for (const char kept : kMarker.substr(0, kMarker.size() - kPipe.size())) {
      content_markers_.Feed(kept);
    }
  }
  if (text.empty()) deltas_.pop_back();
  pending_.erase(0, count);
}

std::vector<ReplyDelta> ReplyMachine::Take() { return std::exchange(deltas_, {}); }

}  // namespace seacliff
