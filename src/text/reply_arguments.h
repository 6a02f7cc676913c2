// The arguments of one tool call as JSON text, made of its parameters as they are read. Text of
// strings goes out as it comes; other values when they are complete, as their type decides how they
// are written (encoding.md 3.1 and 3.4).
#pragma once

#include <cctype>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>

#include "seacliff/text.h"
#include "text/reply_tools.h"

namespace seacliff {

class ReplyArguments {
 public:
  // How the model says the value is written: string="true", "false", or neither.
  enum class Form { kString, kJson, kUnsaid };

  // `schema` may be null. Counts what goes wrong in `calls`.
  ReplyArguments(const ReplyToolSchema* schema, ReplyCalls* calls)
      : schema_(schema), calls_(calls) {}

  void BeginParameter(std::string key, Form form);
  void Value(std::string_view text);
  void EndParameter();
  // No parameter follows. `body` is the text that stood where parameters should have been.
  void Close(std::string_view body);

  // No parameter that must be there is missing; false if nobody knows.
  bool has_required() const;
  // There are values, and each that was begun is complete.
  bool between_values() const { return !open_ && (wraps_ || !keys_.empty()); }
  // The text so far; JSON once it is closed. Nothing of it changes any more.
  const std::string& text() const { return text_; }

 private:
  JsonTypes TypesOf(std::string_view key) const;
  bool MayWrap(std::string_view key) const;
  void WriteKey();
  void WriteValue();
  bool Unwrap(std::string_view value);
  void Count(CallFault fault) { ++calls_->faults[static_cast<size_t>(fault)]; }

  const ReplyToolSchema* schema_;
  ReplyCalls* calls_;
  std::string text_;
  std::set<std::string, std::less<>> keys_;
  std::string key_;    // of the parameter that was begun last
  std::string value_;  // of it, while it is not written
  Form form_ = Form::kUnsaid;
  JsonTypes types_ = 0;
  bool open_ = false;     // the value is not complete
  bool streams_ = false;  // the value is a string that is written as it comes
  bool wraps_ = false;    // the only parameter so far, and an object that may be all the arguments
};

// Of the names of tags, and of the words in JSON.
inline bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// Text that is nearly JSON (True, None, commas before closing brackets) as JSON; "" if it is not.
std::string MendJson(std::string_view text);

}  // namespace seacliff
