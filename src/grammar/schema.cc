// Reading schemas: one keyword after the other.
#include "grammar/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <set>

#include "grammar/format.h"

namespace seacliff::grammar {
namespace {

using Kind = JsonText::Kind;

constexpr size_t kMostSchemas = 20'000;
constexpr int kDeepest = 100;
constexpr size_t kMostNames = 5000;  // in one `required`

// Say nothing about which values are valid.
constexpr std::array kAnnotations = {"title",
                                     "description",
                                     "default",
                                     "example",
                                     "examples",
                                     "deprecated",
                                     "readOnly",
                                     "writeOnly",
                                     "$schema",
                                     "$id",
                                     "id",
                                     "$comment",
                                     "$defs",
                                     "definitions",
                                     "$vocabulary",
                                     "discriminator",
                                     "contentMediaType",
                                     "contentEncoding",
                                     "contentSchema"};

std::string Join(const std::string& path, std::string_view key) {
  std::string out = path + "/";
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

bool IsLiteral(const JsonText& value, std::string_view text) {
  return value.kind == Kind::kLiteral && value.text == text;
}
bool IsBool(const JsonText& value) { return IsLiteral(value, "true") || IsLiteral(value, "false"); }
bool IsNumber(const JsonText& value) {
  return value.kind == Kind::kLiteral && !IsBool(value) && value.text != "null";
}

}  // namespace

uint32_t TypeOf(const JsonText& value) {
  switch (value.kind) {
    case Kind::kString:
      return kString;
    case Kind::kArray:
      return kArray;
    case Kind::kObject:
      return kObject;
    case Kind::kLiteral:
      break;
  }
  if (value.text == "null") return kNull;
  if (IsBool(value)) return kBoolean;
  const auto number = Decimal::Parse(value.text);
  return number && number->integer() ? kInteger : kFraction;
}

bool SameJson(const JsonText& a, const JsonText& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size() ||
      a.members.size() != b.members.size()) {
    return false;
  }
  if (a.kind == Kind::kString) return a.text == b.text;
  if (a.kind == Kind::kLiteral) {
    if (!IsNumber(a) || !IsNumber(b)) return a.text == b.text;
    const auto x = Decimal::Parse(a.text), y = Decimal::Parse(b.text);
    return x && y ? Compare(*x, *y) == 0 : a.text == b.text;
  }
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!SameJson(a.items[i], b.items[i])) return false;
  }
  return std::all_of(a.members.begin(), a.members.end(), [&](const JsonMember& member) {
    const JsonText* other = b.Find(member.key);
    return other != nullptr && SameJson(member.value, *other);
  });
}

const Schema* Schema::Property(std::string_view name) const {
  for (const auto& [key, schema] : properties) {
    if (key == name) return schema;
  }
  return nullptr;
}

bool Schema::Requires(std::string_view name) const {
  return std::find(required.begin(), required.end(), name) != required.end();
}

void SchemaSet::Fail(const std::string& path, std::string_view what) {
  if (status_.ok()) status_ = InvalidArgument(fmt::format("{}: {}", path, what));
}

const Schema* SchemaSet::Read(const JsonText& json) {
  root_ = &json;
  return ReadAt(json, "#");
}

Schema* SchemaSet::New(const std::string& path) {
  schemas_.emplace_back();
  schemas_.back().path = path;
  if (schemas_.size() > kMostSchemas) Fail(path, "the schema is too large");
  return &schemas_.back();
}

const Schema* SchemaSet::ReadAt(const JsonText& json, const std::string& path) {
  if (const auto found = read_.find(path); found != read_.end()) return found->second;
  Schema* out = New(path);
  read_[path] = out;
  if (++depth_ > kDeepest) Fail(path, "the schema is nested too deep");
  if (IsLiteral(json, "false")) {
    out->never = out->says = true;
  } else if (json.kind == Kind::kObject) {
    for (const JsonMember& member : json.members) {
      if (!status_.ok()) break;
      ReadKeyword(json, member.key, member.value, out);
    }
  } else if (!IsLiteral(json, "true")) {
    Fail(path, "is no schema: neither an object nor true or false");
  }
  --depth_;
  return out;
}

int64_t SchemaSet::ReadCount(const JsonText& value, const std::string& path) {
  const auto number = IsNumber(value) ? Decimal::Parse(value.text) : std::nullopt;
  if (!number || !number->integer() || number->negative || number->whole.size() > 9) {
    Fail(path, "must be a whole number, not negative and below 10^9");
    return 0;
  }
  return std::strtoll(number->whole.c_str(), nullptr, 10);
}

std::optional<Bound> SchemaSet::ReadBound(const JsonText& value, const std::string& path,
                                          bool exclusive) {
  const auto number = IsNumber(value) ? Decimal::Parse(value.text) : std::nullopt;
  if (!number) {
    Fail(path, "must be a number with at most 60 digits before and after the point");
    return {};
  }
  return Bound{*number, exclusive};
}

std::vector<const Schema*> SchemaSet::ReadList(const JsonText& value, const std::string& path) {
  std::vector<const Schema*> out;
  if (value.kind != Kind::kArray || value.items.empty()) Fail(path, "must be a list of schemas");
  for (size_t i = 0; i < value.items.size() && status_.ok(); ++i) {
    out.push_back(ReadAt(value.items[i], Join(path, std::to_string(i))));
  }
  return out;
}

void SchemaSet::CheckName(const std::string& name, const std::string& path) {
  if (name.size() > 256) Fail(path, "names of more than 256 bytes cannot be enforced");
}

std::vector<std::string> SchemaSet::ReadNames(const JsonText& value, const std::string& path) {
  std::vector<std::string> out;
  if (value.kind != Kind::kArray) Fail(path, "must be a list of names");
  if (value.items.size() > kMostNames) Fail(path, "more than 5000 names cannot be enforced");
  std::set<std::string> known;
  for (const JsonText& item : value.items) {
    if (item.kind != Kind::kString) Fail(path, "must be a list of names");
    CheckName(item.text, path);
    if (known.insert(item.text).second) out.push_back(item.text);
  }
  return out;
}

std::vector<std::pair<std::string, const Schema*>> SchemaSet::ReadMap(const JsonText& value,
                                                                      const std::string& path) {
  std::vector<std::pair<std::string, const Schema*>> out;
  if (value.kind != Kind::kObject) Fail(path, "must be an object of schemas");
  for (const JsonMember& member : value.members) {
    if (!status_.ok()) break;
    CheckName(member.key, path);
    out.emplace_back(member.key, ReadAt(member.value, Join(path, member.key)));
  }
  return out;
}

void SchemaSet::ReadTypes(const JsonText& value, const std::string& path, Schema* out) {
  static const std::map<std::string, uint32_t> kTypes = {
      {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kNumber},
      {"string", kString}, {"array", kArray},     {"object", kObject}};
  uint32_t types = 0;
  const auto add = [&](const JsonText& name) {
    const auto found = name.kind == Kind::kString ? kTypes.find(name.text) : kTypes.end();
    if (found == kTypes.end()) {
      Fail(path,
           "must be null, boolean, integer, number, string, array, object, or a list of these");
    } else {
      types |= found->second;
    }
  };
  if (value.kind == Kind::kArray) {
    std::for_each(value.items.begin(), value.items.end(), add);
    if (value.items.empty()) Fail(path, "an empty list of types");
  } else {
    add(value);
  }
  out->types &= types;
}

void SchemaSet::ReadFormat(const std::string& format, const std::string& path, Schema* out) {
  if (format == "int32" || format == "int64") {
    // Of numbers. Those of int64 are kept by the most digits that any number has.
    if (format == "int32") {
      Schema* range = New(path);
      range->says = true;
      range->low = Bound{*Decimal::Parse("-2147483648"), false};
      range->high = Bound{*Decimal::Parse("2147483647"), false};
      out->all.push_back(range);
    }
  } else if (format == "float" || format == "double") {
    // Every number is one.
  } else if (FormatPattern(format).empty()) {
    Fail(path,
         fmt::format("the format \"{}\" cannot be enforced (there are {})", format, FormatNames()));
  } else {
    out->format = format;
  }
}

// Keywords whose values are schemas. False if `key` is none of them.
bool SchemaSet::ReadStructure(const std::string& key, const JsonText& value,
                              const std::string& path, Schema* out) {
  if (key == "$ref") {
    if (value.kind != Kind::kString) Fail(path, "must be a string");
    out->refs.push_back(value.text);
  } else if (key == "allOf") {
    const auto all = ReadList(value, path);
    out->all.insert(out->all.end(), all.begin(), all.end());
  } else if (key == "anyOf" || key == "oneOf") {
    out->any.push_back({ReadList(value, path), key == "oneOf", path});
  } else if (key == "properties") {
    out->properties = ReadMap(value, path);
    out->says = out->lists = true;
  } else if (key == "patternProperties") {
    out->pattern_properties = ReadMap(value, path);
    out->says = out->lists = true;
  } else if (key == "additionalProperties") {
    out->additional = ReadAt(value, path);
    out->says = true;
  } else if (key == "propertyNames") {
    out->names = ReadAt(value, path);
    out->says = true;
  } else if (key == "prefixItems" || (key == "items" && value.kind == Kind::kArray)) {
    out->prefix = value.items.empty() ? std::vector<const Schema*>{} : ReadList(value, path);
    out->says = true;
  } else if (key == "items") {
    out->items = ReadAt(value, path);
    out->says = true;
  } else {
    return false;
  }
  return true;
}

void SchemaSet::ReadKeyword(const JsonText& json, const std::string& key, const JsonText& value,
                            Schema* out) {
  const std::string path = Join(out->path, key);
  // "#name" does not change what "#/..." means.
  if (key == "$id" && out->path != "#" && value.text.rfind('#', 0) != 0) {
    Fail(path, "a schema with a name of its own within another one cannot be enforced");
  }
  if (std::find(kAnnotations.begin(), kAnnotations.end(), key) != kAnnotations.end() ||
      key.rfind("x-", 0) == 0 || ReadStructure(key, value, path, out)) {
    return;
  }
  const auto flag = [&] {
    if (!IsBool(value)) Fail(path, "must be true or false");
    return value.text == "true";
  };
  const auto lower = [&](std::optional<Bound> bound) {
    if (bound && (!out->low || Compare(bound->value, out->low->value) > 0 ||
                  (Compare(bound->value, out->low->value) == 0 && bound->exclusive))) {
      out->low = bound;
    }
  };
  const auto upper = [&](std::optional<Bound> bound) {
    if (bound && (!out->high || Compare(bound->value, out->high->value) < 0 ||
                  (Compare(bound->value, out->high->value) == 0 && bound->exclusive))) {
      out->high = bound;
    }
  };
  // Draft 4: the bound stands beside a flag.
  const auto flagged = [&](const char* name) {
    const JsonText* found = json.Find(name);
    return found != nullptr && IsLiteral(*found, "true");
  };

  out->says = true;
  if (key == "type") {
    ReadTypes(value, path, out);
  } else if (key == "enum") {
    if (value.kind != Kind::kArray || value.items.empty()) Fail(path, "must be a list of values");
    std::vector<const JsonText*> values;
    for (const JsonText& item : value.items) values.push_back(&item);
    if (out->values) {  // beside const
      std::erase_if(*out->values, [&](const JsonText* one) {
        return std::none_of(values.begin(), values.end(),
                            [&](const JsonText* other) { return SameJson(*one, *other); });
      });
    } else {
      out->values = std::move(values);
    }
  } else if (key == "const") {
    if (out->values) {
      std::erase_if(*out->values, [&](const JsonText* one) { return !SameJson(*one, value); });
    } else {
      out->values = {&value};
    }
  } else if (key == "minimum") {
    lower(ReadBound(value, path, flagged("exclusiveMinimum")));
  } else if (key == "maximum") {
    upper(ReadBound(value, path, flagged("exclusiveMaximum")));
  } else if (key == "exclusiveMinimum" && !IsBool(value)) {
    lower(ReadBound(value, path, true));
  } else if (key == "exclusiveMaximum" && !IsBool(value)) {
    upper(ReadBound(value, path, true));
  } else if (key == "exclusiveMinimum" || key == "exclusiveMaximum") {
    // Taken with `minimum`, `maximum`.
  } else if (key == "multipleOf") {
    const auto bound = ReadBound(value, path, false);
    const bool good = bound && bound->value.integer() && !bound->value.negative &&
                      !bound->value.zero() && bound->value.whole.size() <= 4 &&
                      std::atoi(bound->value.whole.c_str()) <= kMostMultiple;
    if (!good) Fail(path, "only whole numbers from 1 to 1000 can be enforced");
    out->multiple_of = good ? std::atoi(bound->value.whole.c_str()) : 1;
  } else if (key == "minLength") {
    out->min_length = ReadCount(value, path);
  } else if (key == "maxLength") {
    out->max_length = ReadCount(value, path);
  } else if (key == "pattern") {
    if (value.kind != Kind::kString) Fail(path, "must be a string");
    out->patterns.push_back(value.text);
  } else if (key == "format") {
    if (value.kind != Kind::kString) Fail(path, "must be a string");
    ReadFormat(value.text, path, out);
  } else if (key == "minItems") {
    out->min_items = ReadCount(value, path);
  } else if (key == "maxItems") {
    out->max_items = ReadCount(value, path);
  } else if (key == "uniqueItems") {
    out->unique = flag();
  } else if (key == "additionalItems") {  // of drafts 4 to 7, beside a list of items
    const JsonText* items = json.Find("items");
    if (items != nullptr && items->kind == Kind::kArray) out->items = ReadAt(value, path);
  } else if (key == "required") {
    out->required = ReadNames(value, path);
  } else if (key == "minProperties") {
    out->min_properties = ReadCount(value, path);
  } else if (key == "maxProperties") {
    out->max_properties = ReadCount(value, path);
  } else {
    Fail(path, "this keyword cannot be enforced");
  }
}

const Schema* SchemaSet::OfTypes(uint32_t types) {
  const Schema*& found = of_types_[types];
  if (found == nullptr) {
    Schema* made = New("#");
    made->says = true;
    made->types = types;
    found = made;
  }
  return found;
}

const Schema* SchemaSet::Both(const Schema* a, const Schema* b) {
  if (a == nullptr || b == nullptr || a == b) return a == nullptr ? b : a;
  const Schema*& found = both_[{a, b}];
  if (found == nullptr) {
    Schema* made = New(a->path);
    made->all = {a, b};
    found = made;
  }
  return found;
}

const Schema* SchemaSet::Resolve(const std::string& ref, const Schema& schema) {
  const std::string path = Join(schema.path, "$ref");
  const auto steps = ReferenceSteps(ref);
  if (!steps) {
    Fail(path,
         fmt::format("\"{}\": only references within the schema (\"#/...\") can be followed", ref));
    return OfTypes(kAnyType);
  }
  const JsonText* at = root_;
  std::string canonical = "#";
  for (const std::string& step : *steps) {
    canonical = Join(canonical, step);
    at = at->At(step);
    if (at == nullptr) {
      Fail(path, fmt::format("\"{}\": there is no such schema", ref));
      return OfTypes(kAnyType);
    }
  }
  return ReadAt(*at, canonical);
}

}  // namespace seacliff::grammar
