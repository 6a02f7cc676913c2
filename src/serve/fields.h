// Reading the fields of a request's JSON: each getter checks type and range, leaves its target as
// it is when the field is absent or null, and on a fault keeps the first error, which names the
// field. Fields it is not asked for are ignored.
#pragma once

#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.h"

namespace seacliff::serve {

class Fields {
 public:
  // `path` is put before the fields' names in errors: "messages[2]". `error` must outlive this.
  Fields(simdjson::dom::object object, std::string path, ApiError* error)
      : object_(object), path_(std::move(path)), error_(error) {}

  bool ok() const { return !error_->any(); }
  const std::string& path() const { return path_; }
  std::string PathOf(std::string_view key) const;
  // Keeps the first fault: "<field>: <message>".
  void Fail(std::string_view key, std::string_view message);
  void Fail(ApiError error);

  // The element, if the field is there and not null.
  std::optional<simdjson::dom::element> Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key).has_value(); }

  // A number without a fraction counts as an integer (3.0).
  void Int(std::string_view key, int64_t low, int64_t high, int64_t* value);
  void Int(std::string_view key, int64_t low, int64_t high, int32_t* value);
  void Float(std::string_view key, double low, double high, float* value);
  void Bool(std::string_view key, bool* value);
  void String(std::string_view key, std::string* value);
  // A string, or a list of them.
  void Strings(std::string_view key, size_t most, std::vector<std::string>* value);
  void Ints(std::string_view key, int64_t low, int64_t high, std::vector<int32_t>* value);

  // Nested values; nothing if absent, null or (with an error) of another type.
  std::optional<Fields> Object(std::string_view key);
  std::optional<simdjson::dom::array> Array(std::string_view key);
  // Element i of the array `key`, which must be an object.
  std::optional<Fields> ObjectAt(std::string_view key, size_t i, simdjson::dom::element element);

  simdjson::dom::object object() const { return object_; }

 private:
  simdjson::dom::object object_;
  std::string path_;
  ApiError* error_;
};

// An integer, or a number that is one; nothing otherwise.
std::optional<int64_t> AsInt(simdjson::dom::element element);

// null, false, 0, "", [] and {}.
bool SaysOff(simdjson::dom::element value);

// The text of an object as it was spelt, numbers included, by its keys from the outermost one on;
// "" if there is none. `json` is valid.
std::string RawJson(std::string_view json, std::initializer_list<std::string_view> keys);
// The elements of the array `key`, each as it was spelt; those before the first that is no object.
std::vector<std::string> RawElements(std::string_view json, std::string_view key);

}  // namespace seacliff::serve
