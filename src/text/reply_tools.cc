// Types and required keys out of JSON Schema. What is not understood allows everything.
#include "text/reply_tools.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace seacliff {
namespace {

using Kind = JsonText::Kind;

constexpr int kMaxReferences = 8;  // one behind the other

struct TypeName {
  std::string_view name;
  JsonTypes type;
};
constexpr TypeName kTypeNames[] = {
    {"null", kJsonNull},     {"boolean", kJsonBoolean}, {"integer", kJsonInteger},
    {"number", kJsonNumber}, {"string", kJsonString},   {"array", kJsonArray},
    {"object", kJsonObject},
};

JsonTypes TypeNamed(const JsonText& name) {
  for (const TypeName& row : kTypeNames) {
    if (name.kind == Kind::kString && name.text == row.name) return row.type;
  }
  return 0;
}

bool IsInteger(const JsonText& value) {
  return value.kind == Kind::kLiteral &&
         value.text.find_first_not_of("-0123456789") == std::string::npos;
}

JsonTypes TypeOfValue(const JsonText& value) {
  switch (value.kind) {
    case Kind::kString:
      return kJsonString;
    case Kind::kArray:
      return kJsonArray;
    case Kind::kObject:
      return kJsonObject;
    case Kind::kLiteral:
      break;
  }
  if (value.text == "null") return kJsonNull;
  if (value.text == "true" || value.text == "false") return kJsonBoolean;
  return kJsonNumber;
}

// What "#/$defs/point" stands for.
const JsonText* Resolve(const JsonText& root, std::string_view reference) {
  if (!reference.starts_with("#/")) return nullptr;
  reference.remove_prefix(2);
  const JsonText* at = &root;
  while (at != nullptr && !reference.empty()) {
    const size_t slash = std::min(reference.find('/'), reference.size());
    at = at->Find(reference.substr(0, slash));
    reference.remove_prefix(std::min(slash + 1, reference.size()));
  }
  return at;
}

// Of all keywords that say something, what all of them allow.
JsonTypes TypesOf(const JsonText& root, const JsonText& schema, int references) {
  std::optional<JsonTypes> types;
  const auto narrow = [&types](JsonTypes allowed) {
    if (allowed != 0) types = types ? *types & allowed : allowed;
  };
  const auto any_of = [&narrow](const JsonText& list, const auto& type_of) {
    JsonTypes allowed = 0;
    for (const JsonText& item : list.items) {
      const JsonTypes type = type_of(item);
      if (type == 0) return;
      allowed |= type;
    }
    narrow(allowed);
  };
  const auto of_schema = [&](const JsonText& item) { return TypesOf(root, item, references); };
  for (const JsonMember& member : schema.members) {
    const JsonText& value = member.value;
    if (member.key == "type") {
      if (value.kind == Kind::kString) narrow(TypeNamed(value));
      any_of(value, TypeNamed);
    } else if (member.key == "enum") {
      any_of(value, TypeOfValue);
    } else if (member.key == "const") {
      narrow(TypeOfValue(value));
    } else if (member.key == "anyOf" || member.key == "oneOf") {
      any_of(value, of_schema);
    } else if (member.key == "allOf") {
      for (const JsonText& item : value.items) narrow(of_schema(item));
    } else if (member.key == "$ref" && references < kMaxReferences) {
      const JsonText* target = Resolve(root, value.text);
      if (target != nullptr) narrow(TypesOf(root, *target, references + 1));
    }
  }
  return types.value_or(0);
}

ReplyToolSchema ReadSchema(std::string_view text) {
  ReplyToolSchema out;
  const auto schema = ParseJsonObject(text, "parameters");
  if (!schema.ok()) return out;
  out.known = true;
  if (const JsonText* properties = schema->Find("properties")) {
    for (const JsonMember& member : properties->members) {
      out.parameters.emplace(member.key, TypesOf(*schema, member.value, 0));
    }
  }
  if (const JsonText* required = schema->Find("required")) {
    for (const JsonText& item : required->items) out.required.push_back(item.text);
  }
  return out;
}

}  // namespace

bool IsOfTypes(const JsonText& value, JsonTypes types) {
  JsonTypes type = TypeOfValue(value);
  if (type == kJsonNumber && IsInteger(value)) type |= kJsonInteger;
  return types == 0 || (types & type) != 0;
}

ReplyTools::ReplyTools(const std::vector<ReplyTool>& tools) {
  for (const ReplyTool& tool : tools) tools_.emplace(tool.name, ReadSchema(tool.parameters));
}

const ReplyToolSchema* ReplyTools::Find(std::string_view name) const {
  const auto found = tools_.find(name);
  return found == tools_.end() ? nullptr : &found->second;
}

}  // namespace seacliff
