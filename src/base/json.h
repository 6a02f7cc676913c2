// Reading JSON with errors that name the field. A thin layer over simdjson's DOM: a document keeps
// its parser alive, and getters return a Status with the dotted path of what is missing or wrong.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace seacliff {

class JsonDocument {
 public:
  // `what` names the source in error messages ("config.json", "request body").
  static Result<JsonDocument> Parse(std::string_view text, const std::string& what);

  simdjson::dom::element root() const { return root_; }

 private:
  std::unique_ptr<simdjson::dom::parser> parser_;
  simdjson::dom::element root_;
};

// Getters of object fields. `T` is one of int64_t, uint64_t, double, bool, std::string_view,
// simdjson::dom::object, simdjson::dom::array. A double accepts integers too. The error names
// `path` (the object's, may be empty) and `key`.
template <typename T>
Result<T> JsonGet(simdjson::dom::object object, std::string_view key, std::string_view path = "");

// As JsonGet, but an absent or null field gives `fallback`.
template <typename T>
Result<T> JsonGetOr(simdjson::dom::object object, std::string_view key, T fallback,
                    std::string_view path = "");

}  // namespace seacliff
