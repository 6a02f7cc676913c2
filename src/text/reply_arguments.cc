// From parameters to JSON text; see reply_arguments.h.
#include "text/reply_arguments.h"

#include <algorithm>
#include <utility>

#include "text/json_text.h"

namespace seacliff {
namespace {

bool IsJson(std::string_view text) { return ParseJsonValue(text).has_value(); }

// Python's spelling of three words.
std::string_view JsonWord(std::string_view word) {
  if (word == "True") return "true";
  if (word == "False") return "false";
  return word == "None" ? "null" : word;
}

// The first byte that is no space, from `at` on; 0 at the end.
char NextByte(std::string_view text, size_t at) {
  at = text.find_first_not_of(" \t\r\n", at);
  return at == std::string_view::npos ? '\0' : text[at];
}

// A string with its quotes begins the text; its length, or all of the text.
size_t StringSize(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return text.size();
}

}  // namespace

std::string MendJson(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t size = 1;
    if (text[i] == '"') {
      size = StringSize(text.substr(i));
    } else if (IsWord(text[i])) {
      while (i + size < text.size() && IsWord(text[i + size])) ++size;
      out += JsonWord(text.substr(i, size));
      i += size;
      continue;
    } else if (text[i] == ',') {
      const char next = NextByte(text, i + 1);
      if (next == ']' || next == '}') size = 0;
    }
    out += text.substr(i, size);
    i += std::max<size_t>(size, 1);
  }
  return IsJson(out) ? out : "";
}

JsonTypes ReplyArguments::TypesOf(std::string_view key) const {
  if (schema_ == nullptr) return 0;
  const auto found = schema_->parameters.find(key);
  return found == schema_->parameters.end() ? 0 : found->second;
}

// Models put all arguments into one parameter that the tool does not have.
bool ReplyArguments::MayWrap(std::string_view key) const {
  return keys_.empty() && (key == "arguments" || key == "input") && schema_ != nullptr &&
         schema_->known && !schema_->parameters.contains(key);
}

void ReplyArguments::BeginParameter(std::string key, Form form) {
  if (wraps_) {  // another follows, so it is one like others
    wraps_ = false;
    WriteKey();
    WriteValue();
  }
  key_ = std::move(key);
  form_ = form;
  types_ = TypesOf(key_);
  wraps_ = MayWrap(key_);
  value_.clear();
  open_ = true;
  const bool may_be_string = types_ == 0 || (types_ & kJsonString) != 0;
  streams_ = !wraps_ && (form == Form::kString ? may_be_string
                                               : form == Form::kUnsaid && types_ == kJsonString);
  if (wraps_) return;
  WriteKey();
  if (streams_) text_ += '"';
}

void ReplyArguments::WriteKey() {
  text_ += text_.empty() ? "{" : ", ";
  AppendJsonString(key_, &text_);
  text_ += ": ";
  if (!keys_.insert(key_).second) Count(CallFault::kRepeated);
}

void ReplyArguments::Value(std::string_view text) {
  if (streams_) {
    AppendJsonEscaped(text, &text_);
  } else {
    value_ += text;
  }
}

void ReplyArguments::EndParameter() {
  open_ = false;
  if (streams_) {
    text_ += '"';
  } else if (wraps_) {
    wraps_ = ParseJsonObject(value_, "").ok();
    if (wraps_) return;
    WriteKey();
    WriteValue();
  } else {
    WriteValue();
  }
}

void ReplyArguments::WriteValue() {
  const auto value = ParseJsonValue(value_);
  const bool may_be_string = (types_ & kJsonString) != 0;
  if (form_ == Form::kString && (types_ == 0 || may_be_string)) {
    return AppendJsonString(value_, &text_);
  }
  if (form_ == Form::kString) Count(CallFault::kWrongType);
  if (form_ == Form::kJson && !value) Count(CallFault::kNotJson);
  if (value && (form_ == Form::kJson || IsOfTypes(*value, types_))) {
    text_ += value_;
    return;
  }
  const std::string mended =
      form_ == Form::kString || may_be_string ? std::string() : MendJson(value_);
  if (mended.empty()) return AppendJsonString(value_, &text_);
  text_ += mended;
}

bool ReplyArguments::Unwrap(std::string_view value) {
  const auto object = ParseJsonObject(value, "");
  if (!object.ok()) return false;
  for (const JsonMember& member : object->members) keys_.insert(member.key);
  Count(CallFault::kWrapped);
  text_ = value.substr(value.find('{'), value.rfind('}') - value.find('{') + 1);
  return true;
}

void ReplyArguments::Close(std::string_view body) {
  if (wraps_) {
    wraps_ = false;
    Unwrap(value_);
  } else if (keys_.empty()) {
    if (!Unwrap(body)) text_ = "{}";
  } else {
    text_ += '}';
  }
}

bool ReplyArguments::has_required() const {
  if (schema_ == nullptr) return false;
  std::set<std::string, std::less<>> keys = keys_;
  if (const auto object = ParseJsonObject(wraps_ ? value_ : "", ""); object.ok()) {
    for (const JsonMember& member : object->members) keys.insert(member.key);
  }
  return std::all_of(schema_->required.begin(), schema_->required.end(),
                     [&keys](const std::string& key) { return keys.contains(key); });
}

}  // namespace seacliff
