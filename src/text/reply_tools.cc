// Types and required keys out of JSON Schema. What is not understood allows everything.
#include "text/reply_tools.h"

#include <optional>
#include <utility>

namespace seacliff {
namespace {

using Kind = JsonText::Kind;

constexpr JsonTypes kJsonNumber = kJsonInteger | kJsonFraction;
constexpr int kDeepest = 32;  // of schemas in schemas and behind references
constexpr size_t kLongestReference = 256;
constexpr size_t kStepsForAByte = 4;  // of the schema's text

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

// References may lead in circles and branch at every turn, so steps are counted. What is not looked
// at any more allows everything.
class TypeReader {
 public:
  TypeReader(const JsonText& root, size_t steps) : root_(root), steps_(steps) {}
  JsonTypes TypesOf(const JsonText& schema);

 private:
  const JsonText* Resolve(std::string_view reference);
  bool Spend(size_t steps);

  const JsonText& root_;
  size_t steps_;  // that are left
  int depth_ = 0;
};

bool TypeReader::Spend(size_t steps) {
  const bool enough = steps <= steps_;
  steps_ = enough ? steps_ - steps : 0;
  return enough;
}

const JsonText* TypeReader::Resolve(std::string_view reference) {
  if (reference.size() > kLongestReference || !Spend(reference.size())) return nullptr;
  const auto steps = ReferenceSteps(reference);
  if (!steps) return nullptr;
  const JsonText* at = &root_;
  for (const std::string& step : *steps) {
    if (!Spend(at->members.size())) return nullptr;
    at = at->At(step);
    if (at == nullptr) return nullptr;
  }
  return at;
}

// Of all keywords that say something, what all of them allow.
JsonTypes TypeReader::TypesOf(const JsonText& schema) {
  if (depth_ == kDeepest || !Spend(1 + schema.members.size())) return 0;
  ++depth_;
  std::optional<JsonTypes> types;
  const auto narrow = [&types](JsonTypes allowed) {
    if (allowed != 0) types = types ? *types & allowed : allowed;
  };
  const auto any_of = [this, &narrow](const JsonText& list, const auto& type_of) {
    if (!Spend(list.items.size())) return;
    JsonTypes allowed = 0;
    for (const JsonText& item : list.items) {
      const JsonTypes type = type_of(item);
      if (type == 0) return;
      allowed |= type;
    }
    narrow(allowed);
  };
  const auto of_schema = [this](const JsonText& item) { return TypesOf(item); };
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
    } else if (member.key == "$ref") {
      const JsonText* target = Resolve(value.text);
      if (target != nullptr) narrow(TypesOf(*target));
    }
  }
  --depth_;
  return types.value_or(0);
}

ReplyToolSchema ReadSchema(std::string_view text) {
  ReplyToolSchema out;
  const auto schema = ParseJsonObject(text, "parameters");
  if (!schema.ok()) return out;
  out.known = true;
  TypeReader reader(*schema, kStepsForAByte * text.size());
  if (const JsonText* properties = schema->Find("properties")) {
    for (const JsonMember& member : properties->members) {
      out.parameters.emplace(member.key, reader.TypesOf(member.value));
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
  if (type == kJsonNumber) {
    const bool is_integer = value.text.find_first_not_of("-0123456789") == std::string::npos;
    type = is_integer ? kJsonInteger : kJsonFraction;
  }
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
