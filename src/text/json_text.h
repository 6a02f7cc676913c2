// JSON as text that goes into a prompt: read without losing the spelling of numbers or the order of
// keys, printed as Python's json.dumps does, which is how the checkpoints were trained. Not for
// requests or files (base/json.h is).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace seacliff {

struct JsonMember;

struct JsonText {
  enum class Kind { kLiteral, kString, kArray, kObject };
  Kind kind = Kind::kLiteral;
  std::string text;  // kLiteral: null, true, false or a number as spelt; kString: its characters
  std::vector<JsonText> items;      // kArray
  std::vector<JsonMember> members;  // kObject; each key once

  const JsonText* Find(std::string_view key) const;
  // One of a reference's steps: a member by its key, an item by its index. Null if there is none.
  const JsonText* At(std::string_view step) const;
};

struct JsonMember {
  std::string key;
  JsonText value;
};

// The text of a JSON object. Of a key that stands there twice the last value wins, at the place of
// the first. InvalidArgument otherwise, beginning with `field`.
Result<JsonText> ParseJsonObject(std::string_view text, std::string_view field);

// Any JSON value; nothing if the text is none.
std::optional<JsonText> ParseJsonValue(std::string_view text);

// The steps of a reference within a JSON Schema: $defs and a/b for "#/$defs/a~1b". Nothing if it
// leads out of the schema.
std::optional<std::vector<std::string>> ReferenceSteps(std::string_view reference);

// json.dumps(value, ensure_ascii=False), but numbers keep their spelling.
void AppendJson(const JsonText& value, std::string* out);
void AppendJsonString(std::string_view text, std::string* out);
// As it stands between the quotes.
void AppendJsonEscaped(std::string_view text, std::string* out);

}  // namespace seacliff
