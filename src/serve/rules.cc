// Reading the fields that ask for a form of output.
#include "serve/rules.h"

#include <algorithm>

namespace seacliff::serve {
namespace {

using Kind = OutputRule::Kind;

constexpr size_t kMaxChoices = 4096;
constexpr std::string_view kJsonObjectAppendix = R"({"type": "json_object"})";

constexpr struct {
  const char* key;
  Kind kind;
} kStructuredOutputs[] = {{"json", Kind::kJsonSchema},
                          {"regex", Kind::kRegex},
                          {"choice", Kind::kChoice},
                          {"grammar", Kind::kGrammar},
                          {"json_object", Kind::kJsonObject}};
constexpr const char* kStructuredNotYet[] = {"structural_tag", "whitespace_pattern",
                                             "disable_any_whitespace",
                                             "disable_additional_properties"};

void ReadResponseFormat(std::string_view body, Fields* fields, OutputRule* rule,
                        std::string* appendix) {
  auto format = fields->Object("response_format");
  if (!format) return;
  std::string type = "text";
  format->String("type", &type);
  if (type == "text") return;
  if (type == "json_object") {
    rule->kind = Kind::kJsonObject;
    rule->field = "response_format";
    *appendix = kJsonObjectAppendix;
    return;
  }
  if (type != "json_schema") {
    return format->Fail("type", "must be \"text\", \"json_object\" or \"json_schema\"");
  }
  auto outer = format->Object("json_schema");
  if (!outer) return format->Fail("json_schema", "is missing");
  outer->Bool("strict", &rule->strict);
  if (!outer->Object("schema")) return outer->Fail("schema", "is missing");
  rule->kind = Kind::kJsonSchema;
  rule->field = outer->PathOf("schema");
  rule->text = *appendix = RawJson(body, {"response_format", "json_schema", "schema"});
}

void ReadStructuredOutputs(std::string_view body, Fields* fields, OutputRule* rule) {
  const auto found = fields->Find("structured_outputs");
  if (!found || SaysOff(*found)) return;
  auto outputs = fields->Object("structured_outputs");
  if (!outputs) return;
  for (const char* key : kStructuredNotYet) {
    const auto value = outputs->Find(key);
    if (value && !SaysOff(*value)) return outputs->Fail(NotSupportedYet(outputs->PathOf(key)));
  }
  if (rule->any()) return fields->Fail("structured_outputs", "cannot go with response_format");
  for (const auto& [key, kind] : kStructuredOutputs) {
    const auto value = outputs->Find(key);
    if (!value || (kind == Kind::kJsonObject && SaysOff(*value))) continue;
    if (rule->any()) break;
    rule->kind = kind;
    rule->field = outputs->PathOf(key);
    if (kind == Kind::kJsonObject) {
      bool wanted = true;
      outputs->Bool(key, &wanted);
    } else if (kind == Kind::kChoice) {
      if (!value->is_array()) return outputs->Fail(key, "must be a list of strings");
      outputs->Strings(key, kMaxChoices, &rule->choices);
      if (rule->choices.empty()) return outputs->Fail(key, "must not be empty");
    } else if (kind == Kind::kJsonSchema && value->is_object()) {
      rule->text = RawJson(body, {"structured_outputs", key});
    } else if (kind == Kind::kJsonSchema && value->is_bool()) {
      rule->text = bool(*value) ? "true" : "false";
    } else {
      outputs->String(key, &rule->text);
      if (rule->text.empty()) return outputs->Fail(key, "must not be empty");
    }
  }
  const auto asks = [&](const auto& row) {
    const auto value = outputs->Find(row.key);
    return value && !(row.kind == Kind::kJsonObject && SaysOff(*value));
  };
  if (std::count_if(std::begin(kStructuredOutputs), std::end(kStructuredOutputs), asks) != 1) {
    fields->Fail("structured_outputs",
                 "needs exactly one of json, regex, choice, grammar and json_object");
  }
}

}  // namespace

bool ToolRules::all_strict() const {
  return std::all_of(tools.begin(), tools.end(), [](const auto& tool) { return tool.strict; });
}

void ReadOutputRule(std::string_view body, Fields* fields, OutputRule* rule,
                    std::string* appendix) {
  ReadResponseFormat(body, fields, rule, appendix);
  ReadStructuredOutputs(body, fields, rule);
}

}  // namespace seacliff::serve
