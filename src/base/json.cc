// Typed field access over simdjson's DOM.
#include "base/json.h"

#include <fmt/format.h>

namespace seacliff {
namespace {

template <typename T>
constexpr const char* Expected();
template <>
constexpr const char* Expected<int64_t>() {
  return "an integer";
}
template <>
constexpr const char* Expected<uint64_t>() {
  return "a non-negative integer";
}
template <>
constexpr const char* Expected<double>() {
  return "a number";
}
template <>
constexpr const char* Expected<bool>() {
  return "true or false";
}
template <>
constexpr const char* Expected<std::string_view>() {
  return "a string";
}
template <>
constexpr const char* Expected<simdjson::dom::object>() {
  return "an object";
}
template <>
constexpr const char* Expected<simdjson::dom::array>() {
  return "an array";
}

std::string Path(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

template <typename T>
Result<T> Convert(simdjson::dom::element element, std::string_view key, std::string_view path) {
  T value;
  if (element.get<T>().get(value) != simdjson::SUCCESS) {
    return InvalidArgument(fmt::format("{}: must be {}", Path(path, key), Expected<T>()));
  }
  return value;
}

}  // namespace

Result<JsonDocument> JsonDocument::Parse(std::string_view text, const std::string& what) {
  JsonDocument document;
  document.parser_ = std::make_unique<simdjson::dom::parser>();
  const auto error = document.parser_->parse(text.data(), text.size()).get(document.root_);
  if (error != simdjson::SUCCESS) {
    return InvalidArgument(
        fmt::format("{}: not valid JSON: {}", what, simdjson::error_message(error)));
  }
  return document;
}

template <typename T>
Result<T> JsonGet(simdjson::dom::object object, std::string_view key, std::string_view path) {
  simdjson::dom::element element;
  if (object.at_key(key).get(element) != simdjson::SUCCESS) {
    return InvalidArgument(fmt::format("{}: missing", Path(path, key)));
  }
  return Convert<T>(element, key, path);
}

template <typename T>
Result<T> JsonGetOr(simdjson::dom::object object, std::string_view key, T fallback,
                    std::string_view path) {
  simdjson::dom::element element;
  if (object.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) return fallback;
  return Convert<T>(element, key, path);
}

#define SC_JSON_TYPE(T)                                                                     \
  template Result<T> JsonGet<T>(simdjson::dom::object, std::string_view, std::string_view); \
  template Result<T> JsonGetOr<T>(simdjson::dom::object, std::string_view, T, std::string_view);
SC_JSON_TYPE(int64_t)
SC_JSON_TYPE(uint64_t)
SC_JSON_TYPE(double)
SC_JSON_TYPE(bool)
SC_JSON_TYPE(std::string_view)
SC_JSON_TYPE(simdjson::dom::object)
SC_JSON_TYPE(simdjson::dom::array)
#undef SC_JSON_TYPE

}  // namespace seacliff
