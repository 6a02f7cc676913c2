// From what a request asks for to compiled grammars.
#include "grammar/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "grammar/ebnf.h"
#include "grammar/expr.h"
#include "grammar/regex.h"
#include "grammar/rules.h"
#include "grammar/schema_rules.h"
#include "grammar/tool_block.h"
#include "grammar/xgrammar_wall.h"
#include "text/utf8.h"

namespace seacliff {
namespace {

constexpr int64_t kMostStates = 50'000;  // of a grammar, repetitions written out

}  // namespace

size_t Grammar::bytes() const { return impl_->compiled.MemorySizeBytes(); }

struct Grammars::Impl {
  Impl(const Tokenizer& tokenizer, ChatProfile the_profile, size_t memory)
      : vocabulary(std::make_shared<const grammar::Vocabulary>(tokenizer)), profile(the_profile) {
    const auto made = grammar::Guarded(Code::kInternal, [&] {
      const xgrammar::TokenizerInfo info(vocabulary->bytes, xgrammar::VocabType::RAW,
                                         vocabulary->size, vocabulary->end_ids);
      const int threads =
          std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 8);
      compiler = xgrammar::GrammarCompiler(info, threads, true, static_cast<int64_t>(memory));
      return true;
    });
    if (!made.ok()) broken = made.status();
  }

  Result<Grammar> Compile(const std::string& ebnf, bool tool_block = false) {
    if (!broken.ok()) return broken;
    auto impl = std::make_shared<Grammar::Impl>();
    impl->tool_block = tool_block;
    const auto compiled = grammar::Guarded(Code::kInvalidArgument, [&] {
      impl->compiled = compiler.CompileGrammar(ebnf, "root");
      return true;
    });
    if (!compiled.ok()) return compiled.status();
    return Grammar(std::move(impl));
  }

  Result<Grammar> Compile(const grammar::RuleTable& rules, const grammar::Expr& root,
                          std::string_view what, bool tool_block = false) {
    if (rules.Size() + grammar::SizeOf(root) > kMostStates) {
      return InvalidArgument(
          fmt::format("{}: too large: written out, it has more than {} parts", what, kMostStates));
    }
    const std::string ebnf = rules.Print(root);
    if (ebnf.empty()) return InvalidArgument(fmt::format("{}: nothing is valid by it", what));
    return Compile(ebnf, tool_block);
  }

  std::shared_ptr<const grammar::Vocabulary> vocabulary;
  ChatProfile profile;
  xgrammar::GrammarCompiler compiler{xgrammar::NullObj{}};
  Status broken;
};

Grammars::Grammars(const Tokenizer& tokenizer, ChatProfile profile, size_t memory)
    : impl_(std::make_unique<Impl>(tokenizer, profile, memory)) {}

Grammars::~Grammars() = default;

Result<Grammar> Grammars::JsonObject() const {
  grammar::RuleTable rules;
  grammar::JsonRules json(&rules);
  return impl_->Compile(rules, json.Object(), "json_object");
}

Result<Grammar> Grammars::JsonSchema(std::string_view schema, bool strict) const {
  const std::optional<JsonText> json = ParseJsonValue(schema);
  if (!json) return InvalidArgument("schema: not JSON");
  grammar::RuleTable rules;
  grammar::JsonRules values(&rules);
  grammar::SchemaSet set;
  grammar::SchemaRules schemas(&set, &values, strict);
  const grammar::Schema* root = set.Read(*json);
  const grammar::Expr expr = set.status().ok() ? schemas.Json(root) : grammar::Nothing();
  if (!set.status().ok()) return set.status();
  return impl_->Compile(rules, expr, "#");
}

Result<Grammar> Grammars::Regex(std::string_view pattern) const {
  const Result<grammar::Expr> expr = grammar::ParseRegex(pattern, grammar::RegexUse::kWhole);
  if (!expr.ok()) return expr.status();
  return impl_->Compile(grammar::RuleTable(), *expr, "regular expression");
}

Result<Grammar> Grammars::Choice(std::span<const std::string> choices) const {
  std::vector<grammar::Expr> options;
  for (const std::string& choice : choices) {
    if (choice.empty() || !utf8::IsValid(choice)) {
      return InvalidArgument("choice: a text that is empty or not valid UTF-8");
    }
    options.push_back(grammar::Text(choice));
  }
  if (options.empty()) return InvalidArgument("choice: there is none");
  return impl_->Compile(grammar::RuleTable(), grammar::Choice(std::move(options)), "choice");
}

Result<Grammar> Grammars::Ebnf(std::string_view text) const {
  SC_RETURN_IF_ERROR(grammar::CheckEbnf(text));
  const std::string ebnf(text);
  const auto printed = grammar::Guarded(
      Code::kInvalidArgument, [&] { return xgrammar::Grammar::FromEBNF(ebnf, "root").ToString(); });
  if (!printed.ok()) return printed.status();
  SC_RETURN_IF_ERROR(grammar::CheckRules(*printed));
  return impl_->Compile(ebnf);
}

Result<Grammar> Grammars::ToolBlock(std::span<const GrammarTool> tools,
                                    const ToolBlockOptions& options) const {
  if (impl_->vocabulary->dsml < 0) {
    return InvalidArgument("tools: the tokenizer has no token for the tags of calls");
  }
  grammar::RuleTable rules;
  const Result<grammar::Expr> block =
      grammar::ToolBlockExpr(tools, options, impl_->profile, impl_->vocabulary->dsml, &rules);
  if (!block.ok()) return block.status();
  return impl_->Compile(rules, *block, "tools", true);
}

Result<Grammar> Grammars::Either(const Grammar& a, const Grammar& b) const {
  if (!impl_->broken.ok()) return impl_->broken;
  auto both = std::make_shared<Grammar::Impl>();
  both->tool_block = a.impl().tool_block || b.impl().tool_block;
  const auto compiled = grammar::Guarded(Code::kInvalidArgument, [&] {
    both->compiled = impl_->compiler.CompileGrammar(
        xgrammar::Grammar::Union({a.impl().compiled.GetGrammar(), b.impl().compiled.GetGrammar()}));
    return true;
  });
  if (!compiled.ok()) return compiled.status();
  return Grammar(std::move(both));
}

std::unique_ptr<TokenRules> Grammars::MakeRules(const Grammar& grammar,
                                                const RulesOptions& options) const {
  return grammar::MakeTokenRules(impl_->vocabulary, grammar.shared(), options);
}

}  // namespace seacliff
