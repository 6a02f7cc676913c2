// The state machine behind ReplyParser: valid UTF-8 and tags in, deltas out, one byte at a time. It
// knows no ids and no tokenizer.
//
// It releases a byte as soon as nothing that may follow can take it back: a tag, the newlines
// before a tag, or a stop string.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/text.h"
#include "text/pattern_watcher.h"

namespace seacliff {

class ReplyMachine {
 public:
  enum class State {
    kReasoning,
    kAnswer,
    kTools,  // inside a block of tool calls: none of it is printed
    kDone,
  };
  // What a tag token means. The angle bracket before kDsml is text.
  enum class Tag { kThinkEnd, kDsml };

  // Without `has_tags` only stop strings are looked for.
  explicit ReplyMachine(const ReplyOptions& options, bool has_tags = true);

  // Text in which tags are not looked for (they come as tokens), and text in which they are.
  void Text(std::string_view text, bool find_tags);
  void OnTag(Tag tag);
  // The reply is over: what is held is text after all.
  void End();

  // Moves out what was released since the last call.
  std::vector<ReplyDelta> Take();

  State state() const { return state_; }
  const std::optional<std::string>& matched_stop() const { return matched_stop_; }

 private:
  void Byte(char byte, bool find_tags);
  void EndReasoning();
  void TrackTag(char byte, bool find_tags);
  void Release(size_t keep);

  State state_;
  bool has_tags_;
  bool drop_newlines_;   // at the beginning of a part
  std::string pending_;  // not yet released
  PatternWatcher tags_;  // looks for tags written as text
  // What of the end of pending_ may be a tag, and the newlines before that.
  size_t tag_prefix_ = 0, newlines_ = 0;
  std::vector<std::string> stop_texts_;
  PatternWatcher stops_;
  bool include_stop_;
  std::optional<std::string> matched_stop_;
  std::vector<ReplyDelta> deltas_;
};

}  // namespace seacliff
