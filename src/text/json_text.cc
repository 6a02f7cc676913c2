// simdjson's on-demand parser, because it shows numbers as they are spelt.
#include "text/json_text.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <map>

namespace seacliff {
namespace {

using simdjson::ondemand::json_type;

bool TakeDigits(std::string_view* text) {
  const size_t size = text->size();
  while (!text->empty() && text->front() >= '0' && text->front() <= '9') text->remove_prefix(1);
  return text->size() < size;
}

bool Take(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

// The on-demand parser does not look inside numbers that it is not asked to convert.
bool IsNumber(std::string_view text) {
  Take(&text, '-');
  if (!Take(&text, '0') && !TakeDigits(&text)) return false;
  if (Take(&text, '.') && !TakeDigits(&text)) return false;
  if (Take(&text, 'e') || Take(&text, 'E')) {
    if (!Take(&text, '+')) Take(&text, '-');
    if (!TakeDigits(&text)) return false;
  }
  return text.empty();
}

std::string_view TrimEnd(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

constexpr int kMaxDepth = 512;  // the on-demand parser sets no limit itself

// These return false for anything that is not JSON.
bool Read(simdjson::ondemand::value value, int depth, JsonText* out);

bool ReadArray(simdjson::ondemand::value value, int depth, JsonText* out) {
  simdjson::ondemand::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) return false;
  for (auto item : array) {
    simdjson::ondemand::value element;
    out->items.emplace_back();
    if (item.get(element) != simdjson::SUCCESS || !Read(element, depth, &out->items.back())) {
      return false;
    }
  }
  return true;
}

bool ReadMembers(simdjson::ondemand::object object, int depth, JsonText* out) {
  std::map<std::string, size_t> places;  // no hash: whoever sends the keys could make them collide
  for (auto field : object) {
    std::string_view key;
    simdjson::ondemand::value element;
    if (field.unescaped_key().get(key) != simdjson::SUCCESS) return false;
    std::string name(key);  // the view does not outlive the next string
    if (field.value().get(element) != simdjson::SUCCESS) return false;
    const auto [place, fresh] = places.emplace(name, out->members.size());
    if (fresh) out->members.push_back({std::move(name), JsonText()});
    JsonText member;
    if (!Read(element, depth, &member)) return false;
    out->members[place->second].value = std::move(member);
  }
  return true;
}

bool Read(simdjson::ondemand::value value, int depth, JsonText* out) {
  json_type type;
  if (depth == kMaxDepth || value.type().get(type) != simdjson::SUCCESS) return false;
  switch (type) {
    case json_type::array:
      out->kind = JsonText::Kind::kArray;
      return ReadArray(value, depth + 1, out);
    case json_type::object: {
      out->kind = JsonText::Kind::kObject;
      simdjson::ondemand::object object;
      return value.get_object().get(object) == simdjson::SUCCESS &&
             ReadMembers(object, depth + 1, out);
    }
    case json_type::string: {
      out->kind = JsonText::Kind::kString;
      std::string_view text;
      if (value.get_string().get(text) != simdjson::SUCCESS) return false;
      out->text = text;
      return true;
    }
    case json_type::number:
      out->text = TrimEnd(value.raw_json_token());
      return IsNumber(out->text);
    case json_type::boolean: {
      bool truth;
      if (value.get_bool().get(truth) != simdjson::SUCCESS) return false;
      out->text = truth ? "true" : "false";
      return true;
    }
    case json_type::null: {
      bool null;
      out->text = "null";
      return value.is_null().get(null) == simdjson::SUCCESS && null;
    }
  }
  return false;
}

// A step of a JSON pointer in a URL, as it was before it was escaped.
std::string Unescaped(std::string_view step) {
  std::string out;
  while (!step.empty()) {
    size_t size = 1;
    char c = step[0];
    if (step.starts_with("~0") || step.starts_with("~1")) {
      c = step[1] == '0' ? '~' : '/';
      size = 2;
    } else if (c == '%' && step.size() > 2) {
      uint8_t byte = 0;
      const char* const end = step.data() + 3;
      if (std::from_chars(step.data() + 1, end, byte, 16).ptr == end) {
        c = static_cast<char>(byte);
        size = 3;
      }
    }
    out += c;
    step.remove_prefix(size);
  }
  return out;
}

}  // namespace

const JsonText* JsonText::Find(std::string_view key) const {
  for (const JsonMember& member : members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

const JsonText* JsonText::At(std::string_view step) const {
  if (kind != Kind::kArray) return Find(step);
  size_t index = items.size();
  const char* const end = step.data() + step.size();
  const bool is_index = std::from_chars(step.data(), end, index).ptr == end;
  return is_index && index < items.size() ? &items[index] : nullptr;
}

std::optional<std::vector<std::string>> ReferenceSteps(std::string_view reference) {
  if (!reference.starts_with('#')) return std::nullopt;
  reference.remove_prefix(1);
  std::vector<std::string> steps;
  while (reference.starts_with('/')) {
    reference.remove_prefix(1);
    const size_t end = std::min(reference.find('/'), reference.size());
    steps.push_back(Unescaped(reference.substr(0, end)));
    reference.remove_prefix(end);
  }
  if (!reference.empty()) return std::nullopt;
  return steps;
}

Result<JsonText> ParseJsonObject(std::string_view text, std::string_view field) {
  const auto error = [field] {
    return InvalidArgument(fmt::format("{}: must be the text of a JSON object", field));
  };
  const simdjson::padded_string padded(text);
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS) return error();
  simdjson::ondemand::object object;
  if (document.get_object().get(object) != simdjson::SUCCESS) return error();
  JsonText value;
  value.kind = JsonText::Kind::kObject;
  if (!ReadMembers(object, 1, &value)) return error();
  // Nothing may follow.
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) return error();
  return value;
}

// The on-demand parser has rules of its own for documents that are no objects or arrays.
std::optional<JsonText> ParseJsonValue(std::string_view text) {
  const simdjson::padded_string padded('[' + std::string(text) + ']');
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  simdjson::ondemand::value list;
  JsonText value;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
      document.get_value().get(list) != simdjson::SUCCESS || !Read(list, 0, &value) ||
      document.current_location().error() != simdjson::OUT_OF_BOUNDS || value.items.size() != 1) {
    return std::nullopt;
  }
  return std::move(value.items[0]);
}

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  AppendJsonEscaped(text, out);
  out->push_back('"');
}

void AppendJsonEscaped(std::string_view text, std::string* out) {
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          *out += fmt::format("\\u{:04x}", static_cast<int>(c));
        } else {
          out->push_back(c);
        }
    }
  }
}

void AppendJson(const JsonText& value, std::string* out) {
  switch (value.kind) {
    case JsonText::Kind::kLiteral:
      *out += value.text;
      return;
    case JsonText::Kind::kString:
      AppendJsonString(value.text, out);
      return;
    case JsonText::Kind::kArray:
      *out += '[';
      for (size_t i = 0; i < value.items.size(); ++i) {
        if (i > 0) *out += ", ";
        AppendJson(value.items[i], out);
      }
      *out += ']';
      return;
    case JsonText::Kind::kObject:
      *out += '{';
      for (size_t i = 0; i < value.members.size(); ++i) {
        if (i > 0) *out += ", ";
        AppendJsonString(value.members[i].key, out);
        *out += ": ";
        AppendJson(value.members[i].value, out);
      }
      *out += '}';
      return;
  }
}

}  // namespace seacliff
