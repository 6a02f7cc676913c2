// Schemas as rules: the JSON texts that are valid, or the parameters of a tool call.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/expr.h"
#include "grammar/schema.h"

namespace seacliff::grammar {

// JSON texts that any schema is built of, in one rule table.
class JsonRules {
 public:
  explicit JsonRules(RuleTable* rules) : rules_(rules) {}

  // Between two parts of a value: nothing, a space, or a line end and an indentation.
  Expr Space();
  Expr Any();     // any value
  Expr Object();  // any object
  Expr String();  // any string, with its quotes
  // The strings, with their quotes, that `body` matches.
  static Expr Quoted(const Expr& body) {
    return Sequence({Text("\""), JsonBody(body), Text("\"")});
  }
  // `open` (first (`,` ...)*) `close`, with spaces.
  Expr Bracketed(const char* open, Expr body, const char* close);
  Expr Comma() { return Sequence({Text(","), Space()}); }
  Expr Pair(Expr key, Expr value) {
    return Sequence({std::move(key), Text(":"), Space(), std::move(value)});
  }
  RuleTable* rules() { return rules_; }

 private:
  void MakeAny();

  RuleTable* rules_;
  Expr space_, any_, object_, string_;
};

class SchemaRules {
 public:
  // `strict`: objects that list properties have no others unless `additionalProperties` is said.
  // Errors go to `set`.
  SchemaRules(SchemaSet* set, JsonRules* json, bool strict)
      : set_(set), json_(json), strict_(strict) {}

  // Values as JSON.
  Expr Json(const Schema* schema);

  // The members of the objects that `schema` allows, each made by `Member`, with `between` between
  // two: what tool calls write, in the schema's order.
  class Members {
   public:
    virtual ~Members() = default;
    virtual Expr Named(const std::string& name, const Schema* value) = 0;
    // Of any name but `names`. Null `value`: anything.
    virtual Expr Others(const std::vector<std::string>& names, const Schema* value) = 0;
    virtual Expr Matching(const Schema& flat, const Expr& name, const Schema* value) = 0;
    virtual Expr Between() = 0;
  };
  Expr ObjectMembers(const Schema& flat, Members* members);
  // The strings that `flat` allows, without quotes or escapes.
  Expr StringBody(const Schema& flat);

 private:
  Expr Flat(const Schema& flat);
  Expr Number(const Schema& flat);
  Expr Array(const Schema& flat);
  Expr Body(const Schema& schema);

  SchemaSet* set_;
  JsonRules* json_;
  bool strict_;
  std::map<const Schema*, int> rules_;
  std::map<int64_t, Expr> multiples_;
  // Rules without a body yet.
  std::vector<std::pair<int, const Schema*>> open_;
  bool filling_ = false;
};

}  // namespace seacliff::grammar
