// The state machine behind ReplyParser: valid UTF-8 and tags in, deltas out, one byte at a time. It
// knows no ids and no tokenizer: tags that were sampled as tokens come as bytes of their own
// (kThinkEndMark, kDsmlMark in reply_calls.h).
//
// It releases a byte as soon as nothing that may follow can take it back: a tag, the newlines
// before a tag, or a stop string.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/text.h"
#include "text/pattern_watcher.h"
#include "text/reply_calls.h"
#include "text/reply_tools.h"

namespace seacliff {

class ReplyMachine {
 public:
  // Without `has_tags` only stop strings are looked for.
  explicit ReplyMachine(const ReplyOptions& options, bool has_tags = true);
  ReplyMachine(const ReplyMachine&) = delete;
  ReplyMachine& operator=(const ReplyMachine&) = delete;

  // How tags come: spelt in the text, as marks in it, or not at all.
  enum class Tags { kText, kMarks, kNone };
  void Text(std::string_view text, Tags tags);
  // The reply is over: what is held is text after all.
  void End();

  // Moves out what was released since the last call.
  std::vector<ReplyDelta> Take();

  bool done() const { return state_ == State::kDone; }
  bool in_calls() const { return state_ == State::kCalls && calls_open_; }
  // What the next byte belongs to, as far as can be told.
  ReplyPart part() const;
  const ReplyCalls& calls() const { return calls_; }
  const std::optional<std::string>& matched_stop() const { return matched_stop_; }

 private:
  enum class State {
    kReasoning,
    kAnswer,
    kCalls,  // in a block of tool calls, or what may be one
    kAfter,  // behind the block: nothing counts any more
    kDone,
  };
  struct Pattern {
    enum class Kind { kThinkEnd, kStrayMarker, kCalls };
    std::string text;
    Kind kind;
    ReplyCallReader::Opening opening = ReplyCallReader::Opening::kMarker;
  };

  static std::vector<Pattern> Patterns(bool of_text, bool plain);
  static PatternWatcher Watcher(const std::vector<Pattern>& patterns);

  void Byte(char byte, Tags tags);
  void TrackTag(char byte, size_t prefix, size_t stop_prefix);
  void OnPattern(const Pattern& pattern);
  void BeginCalls(const Pattern& pattern);
  void CallByte(char byte, Tags tags);
  void AfterByte(char byte);
  void OnCallState(std::vector<ReplyDelta> deltas);
  void ForgetTag();
  void DropNewlines();
  void EndReasoning();
  void Release(size_t keep);

  const ReplyOptions options_;
  const ReplyTools tools_;
  const bool has_tags_;
  State state_;
  bool drop_newlines_;   // at the beginning of a part
  std::string pending_;  // not yet released
  std::vector<Pattern> of_text_, of_tokens_;
  PatternWatcher text_tags_, token_tags_;
  // What of the end of pending_ may be a tag, and what before that a stray one must leave as it
  // was: newlines, and what may be a stop string.
  size_t tag_prefix_ = 0, newlines_ = 0, stop_prefix_ = 0;
  std::vector<std::string> stop_texts_;
  PatternWatcher stops_;
  std::optional<std::string> matched_stop_;
  PatternWatcher content_markers_;  // in what was released
  bool tags_are_text_ = false;
  State before_calls_ = State::kAnswer;  // while there may be none
  bool calls_open_ = false;              // there are
  std::string plain_tag_;                // with which what may be calls begins, if it is text
  std::unique_ptr<ReplyCallReader> reader_;
  ReplyCalls calls_;
  std::vector<ReplyDelta> deltas_;
};

}  // namespace seacliff
