// What a reply has to keep to: the rules that a request asks for in response_format,
// structured_outputs, tools and tool_choice, and the grammar that they are compiled to.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"
#include "serve/api_error.h"
#include "serve/fields.h"

namespace seacliff::serve {

// The form of the whole content.
struct OutputRule {
  enum class Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  Kind kind = Kind::kNone;
  std::string field;  // that asks for it: "structured_outputs.regex"
  std::string text;   // schema (as the client spelt it), regular expression or grammar
  std::vector<std::string> choices;
  bool strict = true;  // as Grammars::JsonSchema's

  bool any() const { return kind != Kind::kNone; }
};

enum class ToolUse {
  kNone,      // no tools, or none may be called
  kAuto,      // as the model likes
  kRequired,  // the reply is a block of calls
};

struct ToolRules {
  ToolUse use = ToolUse::kNone;
  std::vector<GrammarTool> tools;  // all of the request's
  std::string named;               // the one that must be called; "": any
  bool one_call = false;           // exactly one call

  bool all_strict() const;
};

struct RuleSpec {
  OutputRule output;
  ToolRules tools;
  std::optional<Grammar> grammar;  // made by CompileRules

  bool any() const { return output.any() || tools.use != ToolUse::kNone; }
  // The grammar holds from where the model begins a call.
  bool when_called() const { return !output.any() && tools.use == ToolUse::kAuto; }
};

// Reads response_format and structured_outputs out of the request `body`. `appendix` gets the JSON
// text that the prompt tells about a response_format, or "".
void ReadOutputRule(std::string_view body, Fields* fields, OutputRule* rule, std::string* appendix);

// May take seconds: for workers. The error names what cannot be enforced.
ApiError CompileRules(const Grammars& grammars, RuleSpec* rules);

}  // namespace seacliff::serve
