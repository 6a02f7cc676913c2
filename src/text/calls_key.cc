// CallsKey: calls that are equal as JSON have equal keys.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

#include "text/chat_turns.h"
#include "text/json_text.h"

namespace seacliff {
namespace {

// 1.0, 1e0 and 1 are one number. Whole numbers stay as they are, however large.
std::string Number(const std::string& text) {
  constexpr double kExact = 9007199254740992.0;  // whole numbers up to here are doubles
  double value = 0;
  if (text.find_first_of(".eE") == text.npos) return text;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (read.ec != std::errc()) return text;  // no double is near it
  if (std::nearbyint(value) == value && std::fabs(value) < kExact) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  return fmt::format("{}", value);
}

void Normalize(JsonText* value) {
  const bool is_number = value->kind == JsonText::Kind::kLiteral && !std::isalpha(value->text[0]);
  if (is_number) value->text = Number(value->text);
  for (JsonText& item : value->items) Normalize(&item);
  for (JsonMember& member : value->members) Normalize(&member.value);
  std::sort(value->members.begin(), value->members.end(),
            [](const JsonMember& a, const JsonMember& b) { return a.key < b.key; });
}

}  // namespace

void AppendCallKey(std::string_view name, JsonText arguments, std::string* out) {
  Normalize(&arguments);
  AppendJsonString(name, out);
  AppendJson(arguments, out);
}

std::string CallsKey(std::span<const ChatToolCall> calls) {
  std::string key;
  for (const ChatToolCall& call : calls) {
    auto arguments = ParseJsonObject(call.arguments, "arguments");
    if (!arguments.ok()) return "";
    AppendCallKey(call.name, std::move(arguments).value(), &key);
  }
  return key;
}

}  // namespace seacliff
