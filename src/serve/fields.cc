// Field getters over simdjson's DOM.
#include "serve/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace seacliff::serve {

using simdjson::dom::element;

std::optional<int64_t> AsInt(element value) {
  int64_t integer = 0;
  if (value.get<int64_t>().get(integer) == simdjson::SUCCESS) return integer;
  double number = 0;
  if (!value.is_double() || value.get<double>().get(number) != simdjson::SUCCESS) return {};
  if (number != std::floor(number) || std::abs(number) > 9e15) return {};
  return static_cast<int64_t>(number);
}

bool SaysOff(element value) {
  if (value.is_null()) return true;
  if (value.is_bool()) return !bool(value);
  if (value.is_number()) return double(value) == 0;
  if (value.is_string()) return std::string_view(value).empty();
  if (value.is_array()) return simdjson::dom::array(value).size() == 0;
  return value.is_object() && simdjson::dom::object(value).size() == 0;
}

namespace {

namespace ondemand = simdjson::ondemand;

// The first field of that name, also where its name is spelt with escapes.
simdjson::simdjson_result<ondemand::value> FindRaw(ondemand::object object, std::string_view key) {
  for (auto field : object) {
    std::string_view name;
    if (const auto error = field.unescaped_key().get(name)) return error;
    if (name == key) return field.value();
  }
  return simdjson::NO_SUCH_FIELD;
}

}  // namespace

std::string RawJson(std::string_view json, std::initializer_list<std::string_view> keys) {
  const simdjson::padded_string padded(json);
  ondemand::parser parser;
  ondemand::document document;
  ondemand::object object;
  std::string_view raw;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS) return "";
  if (document.get_object().get(object) != simdjson::SUCCESS) return "";
  for (const std::string_view key : keys) {
    if (FindRaw(object, key).get_object().get(object) != simdjson::SUCCESS) return "";
  }
  if (object.raw_json().get(raw) != simdjson::SUCCESS) return "";
  return std::string(raw);
}

std::vector<std::string> RawElements(std::string_view json, std::string_view key) {
  std::vector<std::string> out;
  const simdjson::padded_string padded(json);
  ondemand::parser parser;
  ondemand::document document;
  ondemand::object outer;
  ondemand::array array;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS) return out;
  if (document.get_object().get(outer) != simdjson::SUCCESS) return out;
  if (FindRaw(outer, key).get_array().get(array) != simdjson::SUCCESS) return out;
  for (auto item : array) {
    ondemand::object object;
    std::string_view raw;
    if (item.get_object().get(object) != simdjson::SUCCESS) return out;
    if (object.raw_json().get(raw) != simdjson::SUCCESS) return out;
    out.emplace_back(raw);
  }
  return out;
}

std::string Fields::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void Fields::Fail(std::string_view key, std::string_view message) {
  const std::string path = PathOf(key);
  Fail(BadRequest(path, fmt::format("{}: {}", path, message)));
}

void Fields::Fail(ApiError error) {
  if (!error_->any()) *error_ = std::move(error);
}

std::optional<element> Fields::Find(std::string_view key) const {
  element found;
  if (object_.at_key(key).get(found) != simdjson::SUCCESS || found.is_null()) return {};
  return found;
}

void Fields::Int(std::string_view key, int64_t low, int64_t high, int64_t* value) {
  const auto found = Find(key);
  if (!found) return;
  const auto integer = AsInt(*found);
  if (!integer) return Fail(key, "must be an integer");
  if (*integer < low && high == std::numeric_limits<int64_t>::max()) {
    return Fail(key, fmt::format("must be at least {}", low));
  }
  if (*integer < low || *integer > high) {
    return Fail(key, fmt::format("must be between {} and {}", low, high));
  }
  *value = *integer;
}

void Fields::Int(std::string_view key, int64_t low, int64_t high, int32_t* value) {
  int64_t wide = *value;
  Int(key, low, high, &wide);
  if (ok()) *value = static_cast<int32_t>(wide);
}

void Fields::Float(std::string_view key, double low, double high, float* value) {
  const auto found = Find(key);
  if (!found) return;
  double number = 0;
  if (!found->is_number() || found->get<double>().get(number) != simdjson::SUCCESS) {
    return Fail(key, "must be a number");
  }
  if (!(number >= low && number <= high)) {
    return Fail(key, fmt::format("must be between {} and {}", low, high));
  }
  *value = static_cast<float>(number);
}

void Fields::Bool(std::string_view key, bool* value) {
  const auto found = Find(key);
  if (found && found->get<bool>().get(*value) != simdjson::SUCCESS) {
    Fail(key, "must be true or false");
  }
}

void Fields::String(std::string_view key, std::string* value) {
  const auto found = Find(key);
  if (!found) return;
  std::string_view text;
  if (found->get<std::string_view>().get(text) != simdjson::SUCCESS) {
    return Fail(key, "must be a string");
  }
  *value = std::string(text);
}

void Fields::Strings(std::string_view key, size_t most, std::vector<std::string>* value) {
  const auto found = Find(key);
  if (!found) return;
  std::string_view text;
  if (found->get<std::string_view>().get(text) == simdjson::SUCCESS) {
    value->assign(1, std::string(text));
    return;
  }
  simdjson::dom::array array;
  if (found->get<simdjson::dom::array>().get(array) != simdjson::SUCCESS) {
    return Fail(key, "must be a string or a list of strings");
  }
  value->clear();
  for (const element item : array) {
    if (item.get<std::string_view>().get(text) != simdjson::SUCCESS) {
      return Fail(key, "must be a string or a list of strings");
    }
    if (value->size() == most) return Fail(key, fmt::format("at most {} strings", most));
    value->emplace_back(text);
  }
}

void Fields::Ints(std::string_view key, int64_t low, int64_t high, std::vector<int32_t>* value) {
  const auto array = Array(key);
  if (!array) return;
  value->clear();
  value->reserve(array->size());
  for (const element item : *array) {
    const auto integer = AsInt(item);
    if (!integer) return Fail(key, "must be a list of integers");
    if (*integer < low || *integer > high) {
      return Fail(key, fmt::format("{} is not between {} and {}", *integer, low, high));
    }
    value->push_back(static_cast<int32_t>(*integer));
  }
}

std::optional<Fields> Fields::Object(std::string_view key) {
  const auto found = Find(key);
  if (!found) return {};
  simdjson::dom::object inner;
  if (found->get<simdjson::dom::object>().get(inner) != simdjson::SUCCESS) {
    Fail(key, "must be an object");
    return {};
  }
  return Fields(inner, PathOf(key), error_);
}

std::optional<simdjson::dom::array> Fields::Array(std::string_view key) {
  const auto found = Find(key);
  if (!found) return {};
  simdjson::dom::array inner;
  if (found->get<simdjson::dom::array>().get(inner) != simdjson::SUCCESS) {
    Fail(key, "must be a list");
    return {};
  }
  return inner;
}

std::optional<Fields> Fields::ObjectAt(std::string_view key, size_t i, element value) {
  simdjson::dom::object inner;
  const std::string path = fmt::format("{}[{}]", PathOf(key), i);
  if (value.get<simdjson::dom::object>().get(inner) != simdjson::SUCCESS) {
    Fail(BadRequest(path, path + ": must be an object"));
    return {};
  }
  return Fields(inner, path, error_);
}

}  // namespace seacliff::serve
