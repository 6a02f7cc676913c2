// What a reply may look like: JSON, a schema, a regular expression, a grammar, a block of tool
// calls, compiled for one tokenizer, and the TokenRules of a request that has to keep to it. The
// work is done by xgrammar, which nothing outside this room sees. docs/structured_output.md lists
// what is enforced.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "seacliff/engine.h"
#include "seacliff/status.h"
#include "seacliff/text.h"

namespace seacliff {

// A compiled grammar. Copies share it, it may be used from any thread, and it lives as long as it
// is used.
class Grammar {
 public:
  struct Impl;
  explicit Grammar(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }
  const std::shared_ptr<const Impl>& shared() const { return impl_; }
  size_t bytes() const;  // of memory, about

 private:
  std::shared_ptr<const Impl> impl_;
};

struct GrammarTool {
  std::string name;
  std::string parameters;  // JSON text of the schema of its arguments; "": any
  bool strict = false;     // its parameters are held to the schema, not to their names alone
};

struct ToolBlockOptions {
  bool one_call = false;  // parallel_tool_calls is false, or one tool is named: exactly one call
};

struct RulesOptions {
  bool starts_in_reasoning = false;  // EncodedPrompt's: what stands before </think> is free
  // Tool blocks alone. False: the reply must be the block. True: the reply is free until the model
  // writes the DSML token behind a "<"; from there the block holds.
  bool when_called = false;
};

// Compiles. All methods may be called from any thread; one that compiles takes from a millisecond
// to seconds and belongs on a worker. Compiled grammars are kept, the latest within `memory` bytes.
//
// Errors: InvalidArgument names what cannot be read or enforced, with its path as a JSON pointer
// ("#/properties/a/not: ..."). Nothing that a schema says is left out silently.
class Grammars {
 public:
  Grammars(const Tokenizer& tokenizer, ChatProfile profile, size_t memory = size_t{256} << 20);
  ~Grammars();
  Grammars(const Grammars&) = delete;
  Grammars& operator=(const Grammars&) = delete;

  // Any JSON object.
  Result<Grammar> JsonObject() const;
  // A value that is valid by `schema`, a JSON text. `strict`: objects that list properties have no
  // others unless their schema says additionalProperties; else as JSON Schema has it, where they
  // may.
  Result<Grammar> JsonSchema(std::string_view schema, bool strict) const;
  // A text that the expression matches as a whole.
  Result<Grammar> Regex(std::string_view pattern) const;
  // One of the texts.
  Result<Grammar> Choice(std::span<const std::string> choices) const;
  // A grammar in the GBNF notation, from its rule "root".
  Result<Grammar> Ebnf(std::string_view grammar) const;
  // A block of calls of these tools (encoding.md 2.5), at least one. Errors begin with the tool's
  // place, "[2]: #/properties/a/not: ...".
  Result<Grammar> ToolBlock(std::span<const GrammarTool> tools,
                            const ToolBlockOptions& options) const;

  // What one of the two allows: a JSON answer or a block of calls.
  Result<Grammar> Either(const Grammar& a, const Grammar& b) const;

  // The rules of one request. Cheap. Its end tokens are the tokenizer's end_ids(); they may come
  // when the grammar is complete, and nothing else may then unless the grammar goes on.
  std::unique_ptr<TokenRules> MakeRules(const Grammar& grammar, const RulesOptions& options) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seacliff
