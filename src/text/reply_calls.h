// Reads a block of tool calls, byte by byte, from behind the marker of its opening tag: both tag
// forms of DeepSeek (V4, V4.1), and what models write instead of them (encoding.md 3.2, 3.4).
//
// A call in a block that was opened as it should be goes out as it is written, from its first
// parameter on. Where it is not certain that there is a block at all (its opening tag is missing or
// misspelt), calls go out whole, and only those of known tools that have what they must have.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seacliff/text.h"
#include "text/pattern_watcher.h"
#include "text/reply_arguments.h"
#include "text/reply_tools.h"

namespace seacliff {

// Tags that come as tokens, as bytes that no valid UTF-8 has.
inline constexpr char kThinkEndMark = '\xFD';
inline constexpr char kDsmlMark = '\xFE';

class ReplyCallReader {
 public:
  enum class Opening {
    kMarker,    // <, marker
    kMisspelt,  // the marker with a pipe too many
    kPlain,     // <|DSML|: may be text
    kForced,    // the whole opening tag stands in the prompt
  };
  enum class State {
    kOpening,  // it may be no block
    kOpen,
    kClosed,   // by its closing tag
    kEnough,   // one call is wanted, and came; or the reply is over
    kNoBlock,  // what was read is text: rest()
  };

  // `tools` must outlive it; `options` need not.
  ReplyCallReader(const ReplyOptions& options, const ReplyTools* tools, Opening opening);
  ReplyCallReader(const ReplyCallReader&) = delete;
  ReplyCallReader& operator=(const ReplyCallReader&) = delete;

  // False: the byte was not taken, and the state is now kNoBlock or kClosed. `find_tags`: the
  // marker comes as text. What comes out is appended to `deltas`; `calls` is always the same.
  bool Feed(char byte, bool find_tags, std::vector<ReplyDelta>* deltas, ReplyCalls* calls);
  // The reply is over.
  void End(std::vector<ReplyDelta>* deltas, ReplyCalls* calls);

  State state() const;
  // Without markers.
  std::string rest() const;

 private:
  enum class At { kTag, kBlock, kCall, kValue, kClosed, kEnough, kNoBlock };
  struct Call {
    Call(std::string its_name, const ReplyToolSchema* tool, ReplyCalls* calls)
        : name(std::move(its_name)), arguments(tool, calls) {}

    std::string name;
    ReplyArguments arguments;
    bool refused = false;  // of strict tools: it will be content
    bool begun = false;    // in deltas
    int32_t index = 0;     // once it is
    size_t sent = 0;       // of the arguments' text
    std::string body;      // text between parameters
  };

  void Take(char byte, bool find_tags);
  void TextByte(char byte, bool find_tags);
  void TagByte(char byte, bool find_tags);
  void ValueByte(char byte, bool find_tags);
  void BeginTag(bool closes, At around);
  bool TagMayHave(char byte) const;
  void OnTag(bool whole);
  void OnOpeningTag(std::string_view word, std::string_view attributes, bool whole);
  void OnTagOfBlock(std::string_view word, std::string_view attributes, bool whole);
  void OnTagOfCall(std::string_view word, std::string_view attributes, bool closes_value);
  void BeginCall(std::string_view attributes);
  void BeginParameter(std::string_view attributes);
  void FlushValue(size_t keep);
  void CloseCall();
  bool AbandonCall(bool closable, bool from_tag);
  void EndBlock();
  void Deliver();
  void Refuse();
  void TakeText();
  void Send(bool whole);
  void Count(CallFault fault) { ++calls_->faults[static_cast<size_t>(fault)]; }

  const bool deliver_, one_call_, known_names_;
  const ReplyTools* const tools_;
  std::vector<ReplyDelta>* deltas_ = nullptr;  // while something is fed
  ReplyCalls* calls_ = nullptr;                // as soon as something was
  ReplyCalls unwanted_;                        // stands for it where calls are not wanted

  At at_, around_ = At::kBlock;  // around a tag: kBlock or kCall
  bool opening_;                 // the first tag is not complete
  bool certain_;                 // the block was opened as it should be
  bool plain_;                   // all may be text, which is kept
  bool closes_ = false;          // the tag begins with </
  bool in_quotes_ = false;       // of a tag
  bool closes_value_ = false;    // the tag does
  bool has_all_ = true;          // every call was delivered
  int32_t next_index_ = 0;
  std::string header_;       // of the tag, behind its marker
  std::string text_;         // between tags
  std::string raw_;          // all bytes, while plain_ or a call is refused
  bool begins_raw_ = false;  // with the byte that is fed
  std::optional<Call> call_;
  std::string value_;  // not yet given to the arguments: it may be the closing tag
  PatternWatcher tags_of_text_, tags_of_tokens_, ends_of_text_, ends_of_tokens_;
};

}  // namespace seacliff
