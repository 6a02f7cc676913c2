// JSON for replies, written front to back into one string. It checks no grammar: the caller opens
// and closes in order. Commas are placed by looking at the last byte written.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace seacliff::serve {

// Appends `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view text, std::string* out);

class JsonWriter {
 public:
  JsonWriter& BeginObject() { return Open('{'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('['); }
  JsonWriter& EndArray() { return Close(']'); }

  JsonWriter& Key(std::string_view key) {
    Comma();
    AppendJsonString(key, &out_);
    out_.push_back(':');
    return *this;
  }

  // A number that is not finite is written as null; nullptr is null.
  template <typename T>
  JsonWriter& Value(const T& value) {
    Comma();
    if constexpr (std::is_same_v<T, std::nullptr_t>) {
      out_ += "null";
    } else if constexpr (std::is_same_v<T, bool>) {
      out_ += value ? "true" : "false";
    } else if constexpr (std::integral<T>) {
      out_ += std::to_string(value);
    } else if constexpr (std::floating_point<T>) {
      AppendNumber(value);
    } else {
      AppendJsonString(std::string_view(value), &out_);
    }
    return *this;
  }

  // Text that is JSON already.
  JsonWriter& Raw(std::string_view json) {
    Comma();
    out_ += json;
    return *this;
  }

  template <typename T>
  JsonWriter& Field(std::string_view key, const T& value) {
    return Key(key).Value(value);
  }

  const std::string& text() const { return out_; }
  std::string Take() { return std::move(out_); }

 private:
  JsonWriter& Open(char bracket) {
    Comma();
    out_.push_back(bracket);
    return *this;
  }
  JsonWriter& Close(char bracket) {
    out_.push_back(bracket);
    return *this;
  }
  // No value ends in one of these bytes, so they mean "nothing stands here yet".
  void Comma() {
    if (out_.empty()) return;
    const char last = out_.back();
    if (last != '{' && last != '[' && last != ':') out_.push_back(',');
  }
  template <std::floating_point T>
  void AppendNumber(T value);

  std::string out_;
};

}  // namespace seacliff::serve
