// grammar_oracle TOKENIZER [PROFILE]: src/grammar behind pipes, for the Python tests. Not an
// interface for people. One JSON line in, one out:
//   {schema | regex | choice: [...] | ebnf | object | tools: [...], strict, one_call, also_schema,
//    reasoning, lazy, prefix, walks, seed, longest, accept: [...]}
//   -> {error} or {walks: [{text, whole, error}, ...], accepted: [...], compile_ms,
//   slowest_mask_ms}
// A walk draws tokens that the mask allows, those more often that end things. `text` has the
// tokens' bytes, those of added tokens too; `whole` if it ended with an end token. `prefix` is fed
// first, as tokens. A text is accepted if each of its tokens, and an end token behind them, is
// allowed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "grammar/grammar.h"
#include "text/json_text.h"

namespace {

using namespace seacliff;  // NOLINT: a test program

int64_t Count(const JsonText& request, std::string_view key, int64_t fallback) {
  const JsonText* found = request.Find(key);
  return found == nullptr ? fallback : std::stoll(found->text);
}
bool Flag(const JsonText& request, std::string_view key) {
  const JsonText* found = request.Find(key);
  return found != nullptr && found->text == "true";
}
std::string TextOf(const JsonText* value) { return value == nullptr ? "" : value->text; }

std::vector<std::string> Texts(const JsonText* list) {
  std::vector<std::string> out;
  if (list != nullptr) {
    for (const JsonText& item : list->items) out.push_back(item.text);
  }
  return out;
}

// Schemas come as texts, so that their spelling is kept.
Result<Grammar> Compile(const Grammars& grammars, const JsonText& request) {
  if (const JsonText* schema = request.Find("schema")) {
    return grammars.JsonSchema(schema->text, Flag(request, "strict"));
  }
  if (const JsonText* regex = request.Find("regex")) return grammars.Regex(regex->text);
  if (const JsonText* choice = request.Find("choice")) return grammars.Choice(Texts(choice));
  if (const JsonText* ebnf = request.Find("ebnf")) return grammars.Ebnf(ebnf->text);
  if (request.Find("object") != nullptr) return grammars.JsonObject();
  std::vector<GrammarTool> tools;
  for (const JsonText& tool : request.Find("tools")->items) {
    tools.push_back(
        {TextOf(tool.Find("name")), TextOf(tool.Find("parameters")), Flag(tool, "strict")});
  }
  ToolBlockOptions options;
  options.one_call = Flag(request, "one_call");
  Result<Grammar> block = grammars.ToolBlock(tools, options);
  const JsonText* also = request.Find("also_schema");
  if (!block.ok() || also == nullptr) return block;
  const Result<Grammar> schema = grammars.JsonSchema(also->text, true);
  return schema.ok() ? grammars.Either(*schema, *block) : schema;
}

class Walker {
 public:
  Walker(const Tokenizer& tokenizer, uint64_t seed)
      : tokenizer_(tokenizer),
        random_(seed),
        mask_((static_cast<size_t>(tokenizer.vocab_size()) + 31) / 32) {}

  bool Allowed(int32_t id) const {
    return (mask_[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
  }
  bool Ends(int32_t id) const {
    const auto& ends = tokenizer_.end_ids();
    return std::find(ends.begin(), ends.end(), id) != ends.end();
  }
  // False if everything may come.
  bool Ask(TokenRules* rules) { return rules->Mask(mask_); }

  int32_t Draw(int64_t step, int64_t longest) {
    std::vector<int32_t> all, ending, ends;
    for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
      if (!Allowed(id)) continue;
      const std::string_view bytes = tokenizer_.TokenBytes(id);
      all.push_back(id);
      if (Ends(id)) ends.push_back(id);
      const bool closes = bytes.find_first_of("\"}]<") != std::string_view::npos ||
                          (bytes.size() == 1 && bytes.find_first_of(",:>") == 0);
      if (closes || tokenizer_.IsAdded(id)) ending.push_back(id);
    }
    if (all.empty()) return -1;
    const auto any = [&](const std::vector<int32_t>& ids) {
      return ids[std::uniform_int_distribution<size_t>(0, ids.size() - 1)(random_)];
    };
    const double chance = std::uniform_real_distribution<>(0, 1)(random_);
    const double wish = step * 2 > longest ? 0.9 : 0.35;
    if (!ends.empty() && chance < wish) return any(ends);
    if (!ending.empty() && chance < wish) return any(ending);
    return any(all);
  }

 private:
  const Tokenizer& tokenizer_;
  std::mt19937_64 random_;
  std::vector<uint32_t> mask_;
};

std::string Answer(const Tokenizer& tokenizer, const Grammars& grammars, const JsonText& request) {
  const auto begin = std::chrono::steady_clock::now();
  const Result<Grammar> grammar = Compile(grammars, request);
  std::string out;
  if (!grammar.ok()) {
    AppendJsonString(grammar.status().message(), &out);
    return "{\"error\": " + out + "}";
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  RulesOptions options;
  options.starts_in_reasoning = Flag(request, "reasoning");
  options.when_called = Flag(request, "lazy");
  const int64_t longest = Count(request, "longest", 400);
  Walker walker(tokenizer, static_cast<uint64_t>(Count(request, "seed", 1)));

  out = "{\"walks\": [";
  double slowest = 0;
  for (int64_t i = 0; i < Count(request, "walks", 0); ++i) {
    const auto rules = grammars.MakeRules(*grammar, options);
    std::vector<int32_t> ids = tokenizer.Encode(TextOf(request.Find("prefix")), true);
    for (const int32_t id : ids) rules->Accept(id);
    bool whole = false;
    for (int64_t step = 0; step < longest && !whole; ++step) {
      const auto before = std::chrono::steady_clock::now();
      if (!walker.Ask(rules.get())) break;
      const std::chrono::duration<double> mask = std::chrono::steady_clock::now() - before;
      slowest = std::max(slowest, mask.count());
      const int32_t id = walker.Draw(step, longest);
      if (id < 0) break;
      whole = walker.Ends(id);
      rules->Accept(id);
      if (!whole) ids.push_back(id);
    }
    std::string text;
    AppendJsonString(tokenizer.Decode(ids), &text);
    std::string error;
    AppendJsonString(rules->error().message(), &error);
    out += std::string(i > 0 ? ", " : "") + "{\"text\": " + text +
           ", \"whole\": " + (whole ? "true" : "false") + ", \"error\": " + error + "}";
  }
  out += "], \"accepted\": [";
  const std::vector<std::string> texts = Texts(request.Find("accept"));
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto rules = grammars.MakeRules(*grammar, options);
    bool good = true;
    for (const int32_t id : tokenizer.Encode(texts[i], true)) {
      good = good && (!walker.Ask(rules.get()) || walker.Allowed(id));
      rules->Accept(id);
    }
    good = good && (!walker.Ask(rules.get()) || walker.Allowed(tokenizer.end_ids().front()) ||
                    walker.Allowed(tokenizer.end_ids()[1]));
    out += std::string(i > 0 ? ", " : "") + (good ? "true" : "false");
  }
  return out + "], \"compile_ms\": " + std::to_string(took.count() * 1e3) +
         ", \"slowest_mask_ms\": " + std::to_string(slowest * 1e3) + "}";
}

}  // namespace

int main(int argc, char** argv) {
  const auto tokenizer = Tokenizer::Load(argc > 1 ? argv[1] : "models/tiny");
  const auto profile = ParseChatProfile(argc > 2 ? argv[2] : "preview");
  if (!tokenizer.ok() || !profile.ok()) {
    std::fprintf(stderr, "grammar_oracle: %s\n", tokenizer.status().message().c_str());
    return 1;
  }
  const Grammars grammars(*tokenizer, *profile);
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = ParseJsonValue(line);
    if (!request) return 1;
    std::cout << Answer(*tokenizer, grammars, *request) << std::endl;
  }
  return 0;
}
