// Tags of calls around what schemas allow as parameters.
#include "grammar/tool_block.h"

#include <fmt/format.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "grammar/schema_rules.h"
#include "text/chat_words.h"
#include "text/utf8.h"

namespace seacliff::grammar {
namespace {

constexpr uint32_t kWideBar = 0xFF5C;  // of the DSML token's text

bool FitsIntoTag(std::string_view name) {
  return !name.empty() && name.size() <= 256 &&
         name.find_first_of("\"<>\n\r") == std::string::npos && utf8::IsValid(name);
}

class Block {
 public:
  Block(ChatProfile profile, int32_t dsml, RuleTable* rules)
      : tags_(CallTagsOf(profile)), rules_(rules), json_(rules) {
    dsml_ = Macro(fmt::format("Token({})", dsml));
    raw_ = AnyBeforeClosing();
  }

  Expr Open(std::string_view word, const std::string& rest) const {
    return Sequence({Text("<"), dsml_, Text(std::string(word) + rest)});
  }
  Expr Close(std::string_view word) const {
    return Sequence({Text("</"), dsml_, Text(std::string(word) + ">")});
  }

  // A parameter with a string as it stands, and one with JSON. `name` is what stands between
  // quotes.
  Expr Parameter(const Expr& name, const Expr& raw, const Expr& json) const {
    return Sequence({Open(tags_.parameter, " name=\""), name, Text("\" string=\""),
                     Choice({Sequence({Text("true\">"), raw}), Sequence({Text("false\">"), json})}),
                     Close(tags_.parameter)});
  }

  // Any text without the beginning of a closing tag as text. (The tag itself has the token.) The
  // rules are the states of looking for it.
  Expr AnyBeforeClosing() const {
    const int text = rules_->Add("text"), angle = rules_->Add("angle"),
              slash = rules_->Add("slash");
    const auto state = [&](int rule, std::vector<CharSet::Range> not_these, Expr further) {
      const Expr other =
          Sequence({Set(CharSet::All().Without(CharSet(std::move(not_these)))), rules_->Ref(text)});
      rules_->Define(rule, Choice({Text(""), other, Sequence({Text("<"), rules_->Ref(angle)}),
                                   std::move(further)}));
    };
    state(text, {{'<', '<'}}, Nothing());
    state(angle, {{'<', '<'}, {'/', '/'}}, Sequence({Text("/"), rules_->Ref(slash)}));
    state(slash, {{'<', '<'}, {kWideBar, kWideBar}}, Nothing());
    return rules_->Ref(text);
  }

  Expr AnyNameExpr() const {
    return Repeat(Set(CharSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}, {'-', '.'}})), 1,
                  64);
  }

  Result<Expr> Call(const GrammarTool& tool) {
    if (!FitsIntoTag(tool.name)) {
      return InvalidArgument(fmt::format("the name \"{}\" cannot stand in a tag", tool.name));
    }
    const std::string text = tool.parameters.empty() ? "{\"type\": \"object\"}" : tool.parameters;
    std::optional<JsonText> schema = ParseJsonValue(text);
    if (!schema) return InvalidArgument("parameters: not JSON");
    kept_.push_back(std::move(*schema));
    Expr parameters;
    if (tool.strict) {
      Result<Expr> strict = Strict(kept_.back());
      if (!strict.ok()) return strict;
      parameters = *strict;
    } else {
      parameters = Loose(kept_.back());
    }
    return Sequence({Open(tags_.invoke, fmt::format(" name=\"{}\">\n", tool.name)), parameters,
                     Text("\n"), Close(tags_.invoke)});
  }

 private:
  // The names of the schema, each with anything, in any order.
  Expr Loose(const JsonText& schema) {
    std::vector<Expr> names;
    const JsonText* listed = schema.Find("properties");
    const JsonText* others = schema.Find("additionalProperties");
    const bool open = others != nullptr && others->text != "false";
    for (const char* key : {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"}) {
      if (schema.Find(key) != nullptr) listed = nullptr;
    }
    if (listed != nullptr && !open) {
      for (const JsonMember& member : listed->members) {
        if (FitsIntoTag(member.key)) names.push_back(Text(member.key));
      }
    }
    const bool none = listed != nullptr && !open && listed->members.empty();
    const Expr name = none ? Nothing() : names.empty() ? AnyNameExpr() : Choice(std::move(names));
    const Expr one = rules_->AddDefined("parameter", Parameter(name, raw_, json_.Any()));
    return Optional(Sequence({one, Repeat(Sequence({Text("\n"), one}), 0, -1)}));
  }

  // What the schema allows, in its order.
  class ParameterMembers : public SchemaRules::Members {
   public:
    ParameterMembers(Block* block, SchemaSet* set, SchemaRules* rules)
        : block_(block), set_(set), rules_(rules) {}

    Expr Named(const std::string& name, const Schema* value) override {
      if (!FitsIntoTag(name)) {
        set_->Fail(value == nullptr ? "#" : value->path, "the name cannot stand in a tag");
        return Nothing();
      }
      return block_->Parameter(Text(name), Raw(value), NotString(value));
    }
    Expr Others(const std::vector<std::string>& names, const Schema* value) override {
      const CharSet chars({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}, {'-', '.'}});
      return block_->Parameter(AnyBut(chars, names), Raw(value), NotString(value));
    }
    Expr Matching(const Schema& flat, const Expr&, const Schema*) override {
      set_->Fail(flat.path, "patternProperties and propertyNames of a tool cannot be enforced");
      return Nothing();
    }
    Expr Between() override { return Text("\n"); }

   private:
    Expr Raw(const Schema* value) {
      if (value == nullptr) return block_->raw_;
      std::vector<Expr> options;
      for (const Schema& flat : set_->Alternatives(*set_->Both(value, set_->OfTypes(kString)))) {
        if (!set_->status().ok()) return Nothing();
        if (flat.never || (flat.types & kString) == 0) continue;
        if (flat.values) {
          for (const JsonText* one : *flat.values) {
            if (one->kind == JsonText::Kind::kString && set_->Allows(flat, *one)) {
              options.push_back(Text(one->text));
            }
          }
        } else if (flat.patterns.empty() && flat.format.empty() && flat.min_length == 0 &&
                   flat.max_length < 0) {
          options.push_back(block_->raw_);
        } else {
          options.push_back(WithoutChar(rules_->StringBody(flat), kWideBar));
        }
      }
      return Choice(std::move(options));
    }
    Expr NotString(const Schema* value) {
      return rules_->Json(set_->Both(value, set_->OfTypes(kAnyType & ~uint32_t{kString})));
    }

    Block* block_;
    SchemaSet* set_;
    SchemaRules* rules_;
  };

  Result<Expr> Strict(const JsonText& json) {
    SchemaSet set;
    SchemaRules rules(&set, &json_, true);
    ParameterMembers members(this, &set, &rules);
    std::vector<Expr> options;
    const Schema* schema = set.Read(json);
    for (const Schema& flat : set.Alternatives(*schema)) {
      if (!set.status().ok()) break;
      if (flat.never || (flat.types & kObject) == 0) continue;
      if (flat.values) set.Fail(flat.path, "enum and const of a tool cannot be enforced");
      options.push_back(rules.ObjectMembers(flat, &members));
    }
    if (!set.status().ok()) {
      return set.status();
    }
    const Expr all = Choice(std::move(options));
    if (rules_->Print(all).empty()) {
      return InvalidArgument("#: no object is valid by it");
    }
    return all;
  }

  const CallTags& tags_;
  RuleTable* rules_;
  JsonRules json_;
  Expr dsml_, raw_;
  std::deque<JsonText> kept_;  // schemas refer to them
};

}  // namespace

Result<Expr> ToolBlockExpr(std::span<const GrammarTool> tools, const ToolBlockOptions& options,
                           ChatProfile profile, int32_t dsml, RuleTable* rules) {
  if (tools.empty()) return InvalidArgument("tools: there is none to call");
  Block block(profile, dsml, rules);
  std::vector<Expr> calls;
  for (size_t i = 0; i < tools.size(); ++i) {
    Result<Expr> call = block.Call(tools[i]);
    if (!call.ok()) return InvalidArgument(fmt::format("[{}]: {}", i, call.status().message()));
    calls.push_back(std::move(*call));
  }
  const Expr call = rules->AddDefined("call", Choice(std::move(calls)));
  const CallTags& tags = CallTagsOf(profile);
  return Sequence({block.Open(tags.block, ">\n"), call,
                   options.one_call ? Text("") : Repeat(Sequence({Text("\n"), call}), 0, -1),
                   Text("\n"), block.Close(tags.block)});
}

}  // namespace seacliff::grammar
