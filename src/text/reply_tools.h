// What the schemas of a request's tools say about the arguments of calls, as far as reading calls
// needs it: which types a parameter may have, and which parameters must be there.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "seacliff/text.h"
#include "text/json_text.h"

namespace seacliff {

// Types of JSON Schema, as bits; 0: whatever.
using JsonTypes = uint32_t;
enum : JsonTypes {
  kJsonNull = 1,
  kJsonBoolean = 2,
  kJsonInteger = 4,
  kJsonFraction = 8,  // a number that is no integer
  kJsonString = 16,
  kJsonArray = 32,
  kJsonObject = 64,
};

// Whether the value is of one of the types.
bool IsOfTypes(const JsonText& value, JsonTypes types);

struct ReplyToolSchema {
  std::map<std::string, JsonTypes, std::less<>> parameters;
  std::vector<std::string> required;
  bool known = false;  // there is a schema
};

class ReplyTools {
 public:
  explicit ReplyTools(const std::vector<ReplyTool>& tools);

  bool empty() const { return tools_.empty(); }
  // Null if there is no tool of this name.
  const ReplyToolSchema* Find(std::string_view name) const;

 private:
  std::map<std::string, ReplyToolSchema, std::less<>> tools_;
};

}  // namespace seacliff
