// From what a request asks for to its grammar.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "serve/rules.h"

namespace seacliff::serve {
namespace {

using Kind = OutputRule::Kind;

ApiError BadField(const std::string& field, std::string_view message) {
  return BadRequest(field, fmt::format("{}: {}", field, message));
}

Result<Grammar> MakeOutput(const Grammars& grammars, const OutputRule& rule) {
  switch (rule.kind) {
    case Kind::kNone:
    case Kind::kJsonObject:
      break;
    case Kind::kJsonSchema:
      return grammars.JsonSchema(rule.text, rule.strict);
    case Kind::kRegex:
      return grammars.Regex(rule.text);
    case Kind::kChoice:
      return grammars.Choice(rule.choices);
    case Kind::kGrammar:
      return grammars.Ebnf(rule.text);
  }
  return grammars.JsonObject();
}

// The grammar of the tools that may be called. A fault is told with the place of its tool among the
// request's.
ApiError CompileTools(const Grammars& grammars, const ToolRules& rules,
                      std::optional<Grammar>* out) {
  std::vector<GrammarTool> tools;
  std::vector<size_t> places;
  for (size_t i = 0; i < rules.tools.size(); ++i) {
    if (!rules.named.empty() && rules.tools[i].name != rules.named) continue;
    tools.push_back(rules.tools[i]);
    places.push_back(i);
  }
  const auto grammar = grammars.ToolBlock(tools, {.one_call = rules.one_call});
  if (grammar.ok()) {
    *out = grammar.value();
    return {};
  }
  ApiError error = FromStatus(grammar.status());
  std::string_view message = grammar.status().message();
  size_t tool = 0;
  if (error.http_status != 400 || !message.starts_with('[')) return error;
  const auto number = std::from_chars(message.data() + 1, message.data() + message.size(), tool);
  if (number.ec != std::errc() || tool >= places.size()) return error;
  message.remove_prefix(std::min(message.find(": "), message.size() - 2) + 2);
  return BadField(fmt::format("tools[{}].function.parameters", places[tool]), message);
}

ApiError CompileOutput(const Grammars& grammars, const OutputRule& rule,
                       std::optional<Grammar>* out) {
  const auto grammar = MakeOutput(grammars, rule);
  if (grammar.ok()) {
    *out = grammar.value();
    return {};
  }
  ApiError error = FromStatus(grammar.status());
  return error.http_status == 400 ? BadField(rule.field, grammar.status().message()) : error;
}

}  // namespace

ApiError CompileRules(const Grammars& grammars, RuleSpec* rules) {
  std::optional<Grammar> output, calls;
  if (rules->output.any()) {
    ApiError error = CompileOutput(grammars, rules->output, &output);
    if (error.any()) return error;
  }
  if (rules->tools.use != ToolUse::kNone) {
    ApiError error = CompileTools(grammars, rules->tools, &calls);
    if (error.any()) return error;
  }
  rules->grammar = output ? output : calls;
  if (output && calls) {
    const auto either = grammars.Either(*output, *calls);
    if (!either.ok()) return FromStatus(either.status());
    rules->grammar = either.value();
  }
  return {};
}

}  // namespace seacliff::serve
