// From schemas to expressions.
#include "grammar/schema_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "grammar/format.h"
#include "grammar/regex.h"

namespace seacliff::grammar {
namespace {

// Characters of names that stand for themselves in JSON.
CharSet PlainChars() {
  return CharSet::All().Without(CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}}));
}

}  // namespace

Expr JsonRules::Space() {
  if (space_ == nullptr) {
    space_ = rules_->AddDefined(
        "space", Optional(Choice(
                     {Text(" "), Sequence({Text("\n"), Repeat(Set(CharSet::Of(" \t")), 0, -1)})})));
  }
  return space_;
}

Expr JsonRules::Bracketed(const char* open, Expr body, const char* close) {
  return Sequence({Text(open), Space(), std::move(body), Space(), Text(close)});
}

void JsonRules::MakeAny() {
  if (any_ != nullptr) return;
  const int any = rules_->Add("any");
  const int object = rules_->Add("object");
  any_ = rules_->Ref(any);
  object_ = rules_->Ref(object);
  const auto list = [&](const Expr& one) {
    return Optional(Sequence({one, Repeat(Sequence({Comma(), one}), 0, -1)}));
  };
  rules_->Define(object, Bracketed("{", list(Pair(String(), any_)), "}"));
  const Expr array = rules_->AddDefined("array", Bracketed("[", list(any_), "]"));
  rules_->Define(any, Choice({String(), object_, array, NumberWithin({}, {}), Text("true"),
                              Text("false"), Text("null")}));
}

Expr JsonRules::Any() {
  MakeAny();
  return any_;
}

Expr JsonRules::Object() {
  MakeAny();
  return object_;
}

Expr JsonRules::String() {
  if (string_ == nullptr) {
    // Characters beyond 16 bits may come as two escapes too. One rule goes from character to
    // character, so that most tokens are known to be good without looking further.
    const CharSet hex({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
    const Expr digit = Set(hex), d = Set(CharSet::Of("dD")), escape = Text("\\u");
    const int body = rules_->Add("body");
    const Expr more = rules_->Ref(body);
    rules_->Define(
        body,
        Choice(
            {Text("\""),
             Sequence({Set(CharSet::All().Without(CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}))),
                       more}),
             Sequence({Text("\\"), Set(CharSet::Of("\"\\/bfnrt")), more}),
             Sequence({escape, Set(hex.Without(CharSet::Of("dD"))), digit, digit, digit, more}),
             Sequence({escape, d, Set(CharSet({{'0', '7'}})), digit, digit, more}),
             Sequence({escape, d, Set(CharSet::Of("89abAB")), digit, digit, escape, d,
                       Set(CharSet::Of("cdefCDEF")), digit, digit, more})}));
    string_ = rules_->AddDefined("string", Sequence({Text("\""), more}));
  }
  return string_;
}

Expr SchemaRules::Json(const Schema* schema) {
  if (schema == nullptr) return json_->Any();
  if (!set_->status().ok()) return Nothing();
  if (const auto found = rules_.find(schema); found != rules_.end()) {
    return json_->rules()->Ref(found->second);
  }
  const size_t name = schema->path.rfind('/');
  const int rule = json_->rules()->Add(
      name == std::string::npos ? "schema" : std::string_view(schema->path).substr(name + 1));
  rules_[schema] = rule;
  open_.emplace_back(rule, schema);
  // The outermost call fills them all: schemas may lead to each other in chains of thousands.
  if (!filling_) {
    filling_ = true;
    while (!open_.empty()) {
      const auto [next, body] = open_.back();
      open_.pop_back();
      json_->rules()->Define(next, Body(*body));
    }
    filling_ = false;
  }
  return json_->rules()->Ref(rule);
}

Expr SchemaRules::Body(const Schema& schema) {
  // What says nothing beside where else to look needs not be taken apart, so that schemas may
  // refer to themselves.
  const size_t parts = schema.refs.size() + schema.all.size() + schema.any.size();
  if (!schema.says && parts == 1) {
    if (!schema.refs.empty()) {
      const Schema* target = set_->Resolve(schema.refs[0], schema);
      return set_->status().ok() ? Json(target) : Nothing();
    }
    if (!schema.all.empty()) return Json(schema.all[0]);
    if (!schema.any.empty() && !schema.any[0].one) {
      std::vector<Expr> options;
      for (const Schema* option : schema.any[0].options) options.push_back(Json(option));
      return Choice(std::move(options));
    }
  }
  if (!schema.says && parts == 0) return json_->Any();
  std::vector<Expr> options;
  for (const Schema& flat : set_->Alternatives(schema)) {
    if (!set_->status().ok()) return Nothing();
    options.push_back(Flat(flat));
  }
  return Choice(std::move(options));
}

Expr SchemaRules::Flat(const Schema& flat) {
  if (flat.never) return Nothing();
  if (!flat.says) return json_->Any();
  std::vector<Expr> options;
  if (flat.values) {
    for (const JsonText* value : *flat.values) {
      if (!set_->Allows(flat, *value)) continue;
      std::string text;
      AppendJson(*value, &text);
      options.push_back(Text(std::move(text)));
    }
    return Choice(std::move(options));
  }
  if (flat.types & kNull) options.push_back(Text("null"));
  if (flat.types & kBoolean) options.push_back(Choice({Text("true"), Text("false")}));
  if (flat.types & kNumber) options.push_back(Number(flat));
  if (flat.types & kString) {
    const bool free =
        flat.patterns.empty() && flat.format.empty() && flat.min_length == 0 && flat.max_length < 0;
    options.push_back(free ? json_->String() : JsonRules::Quoted(StringBody(flat)));
  }
  if (flat.types & kArray) options.push_back(Array(flat));
  if (flat.types & kObject) {
    class JsonMembers : public Members {
     public:
      JsonMembers(SchemaRules* rules, JsonRules* json) : rules_(rules), json_(json) {}
      Expr Named(const std::string& name, const Schema* value) override {
        std::string key;
        AppendJsonString(name, &key);
        return json_->Pair(Text(std::move(key)), rules_->Json(value));
      }
      Expr Others(const std::vector<std::string>& names, const Schema* value) override {
        const Expr key = names.empty()
                             ? json_->String()
                             : Sequence({Text("\""), AnyBut(PlainChars(), names), Text("\"")});
        return json_->Pair(key, rules_->Json(value));
      }
      Expr Matching(const Schema&, const Expr& name, const Schema* value) override {
        return json_->Pair(JsonRules::Quoted(name), rules_->Json(value));
      }
      Expr Between() override { return json_->Comma(); }

     private:
      SchemaRules* rules_;
      JsonRules* json_;
    } members(this, json_);
    options.push_back(json_->Bracketed("{", ObjectMembers(flat, &members), "}"));
  }
  return Choice(std::move(options));
}

Expr SchemaRules::Number(const Schema& flat) {
  if (flat.multiple_of > 1 && (flat.types & kInteger)) {
    if (!flat.low && !flat.high) {
      Expr& multiples = multiples_[flat.multiple_of];
      if (multiples == nullptr) {
        multiples = MultipleOf(static_cast<int>(flat.multiple_of), json_->rules());
      }
      return multiples;
    }
    // Both bounds near: written out.
    constexpr size_t kMost = 9;  // digits
    if (flat.low && flat.high && flat.low->value.whole.size() <= kMost &&
        flat.high->value.whole.size() <= kMost) {
      const auto whole = [](const Decimal& d) {
        const int64_t n = std::stoll(d.whole);
        return d.negative ? -n : n;
      };
      std::vector<Expr> values;
      const int64_t n = flat.multiple_of;
      for (int64_t v = (whole(flat.low->value) / n - 1) * n; v <= whole(flat.high->value); v += n) {
        JsonText value;
        value.text = std::to_string(v);
        if (set_->Allows(flat, value)) values.push_back(Text(value.text));
        if (values.size() > 5000) {
          set_->Fail(flat.path,
                     "multipleOf with more than 5000 multiples between the bounds cannot "
                     "be enforced");
          return Nothing();
        }
      }
      return Choice(std::move(values));
    }
    set_->Fail(flat.path, "multipleOf beside one bound alone cannot be enforced");
    return Nothing();
  }
  const bool whole = (flat.types & kFraction) == 0 || flat.multiple_of == 1;
  return whole ? IntegerWithin(flat.low, flat.high) : NumberWithin(flat.low, flat.high);
}

Expr SchemaRules::StringBody(const Schema& flat) {
  const auto fail = [&](std::string_view what) {
    set_->Fail(flat.path, what);
    return Nothing();
  };
  if (flat.patterns.size() + (flat.format.empty() ? 0 : 1) > 1) {
    return fail("two of pattern and format together cannot be enforced");
  }
  if (flat.patterns.empty() && flat.format.empty()) {
    return Repeat(Set(CharSet::All()), flat.min_length, flat.max_length);
  }
  const std::string pattern = flat.format.empty() ? flat.patterns[0] : FormatPattern(flat.format);
  // With limits of length a pattern that may stand anywhere is first tried as it is, then at the
  // beginning of the string, then as all of it. If nothing is left of a narrower one, that does not
  // mean that nothing is valid.
  for (const RegexUse use : {RegexUse::kSearch, RegexUse::kBegin, RegexUse::kWhole}) {
    if (use != RegexUse::kWhole && !flat.format.empty()) continue;
    const Result<Expr> expr = ParseRegex(pattern, use);
    if (!expr.ok()) return fail("pattern: " + expr.status().message());
    const Expr limited = WithLength(*expr, flat.min_length, flat.max_length);
    const bool exact = use == RegexUse::kSearch || !flat.format.empty();
    if (limited != nullptr && (exact || !IsNothing(limited))) return limited;
  }
  return fail(
      fmt::format("{} beside minLength or maxLength can only be enforced where one part of "
                  "it varies in length",
                  flat.format.empty() ? "pattern" : "format"));
}

Expr SchemaRules::Array(const Schema& flat) {
  if (flat.unique && (flat.max_items < 0 || flat.max_items > 1)) {
    set_->Fail(flat.path + "/uniqueItems", "this keyword cannot be enforced");
    return Nothing();
  }
  if (flat.max_items >= 0 && flat.min_items > flat.max_items) return Nothing();
  const auto listed = static_cast<int64_t>(flat.prefix.size());
  const int64_t most = flat.max_items;
  // What stands behind item i - 1, its comma included.
  std::vector<Expr> parts;
  Expr rest = most >= 0 && most <= listed
                  ? Text("")
                  : Repeat(Sequence({json_->Comma(), Json(flat.items)}),
                           std::max<int64_t>(0, flat.min_items - std::max<int64_t>(1, listed)),
                           most < 0 ? -1 : most - std::max<int64_t>(1, listed));
  for (int64_t i = std::min(listed, most < 0 ? listed : most) - 1; i >= 1; --i) {
    rest = Sequence({json_->Comma(), Json(flat.prefix[static_cast<size_t>(i)]), rest});
    if (i >= flat.min_items) rest = json_->rules()->AddDefined("more", Optional(rest));
  }
  Expr body =
      most == 0 ? Nothing() : Sequence({Json(listed > 0 ? flat.prefix[0] : flat.items), rest});
  if (flat.min_items == 0) body = Choice({Text(""), body});
  return json_->Bracketed("[", body, "]");
}

Expr SchemaRules::ObjectMembers(const Schema& flat, Members* members) {
  const auto fail = [&](std::string_view what) {
    set_->Fail(flat.path, what);
    return Nothing();
  };
  // Those listed, in their order, then those required beyond them.
  struct Member {
    Expr expr;
    bool required = false;
  };
  std::vector<std::string> names;
  std::vector<Member> listed;
  for (const auto& [name, schema] : flat.properties) {
    names.push_back(name);
    if (schema->never && !flat.Requires(name)) continue;
    listed.push_back({members->Named(name, schema), flat.Requires(name)});
  }
  for (const std::string& name : flat.required) {
    if (flat.Property(name) != nullptr) continue;
    if (flat.additional != nullptr && flat.additional->never) return Nothing();
    names.push_back(name);
    listed.push_back({members->Named(name, flat.additional), true});
  }
  if (!listed.empty() && flat.names != nullptr) {
    return fail("propertyNames beside properties or required cannot be enforced");
  }

  // The others.
  const bool open = flat.additional != nullptr ? !flat.additional->never : !(strict_ && flat.lists);
  Expr other = Nothing();
  if (!flat.pattern_properties.empty()) {
    if (flat.pattern_properties.size() > 1 || !names.empty() || flat.names != nullptr) {
      return fail(
          "patternProperties with more than one pattern, or beside other properties, cannot "
          "be enforced");
    }
    const auto& [pattern, value] = flat.pattern_properties[0];
    const Result<Expr> name = ParseRegex(pattern, RegexUse::kSearch);
    if (!name.ok()) return fail("patternProperties: " + name.status().message());
    other = members->Matching(flat, *name, value);
  } else if (open && flat.names != nullptr) {
    std::vector<Expr> keys;
    for (const Schema& one : set_->Alternatives(*set_->Both(flat.names, set_->OfTypes(kString)))) {
      if (!set_->status().ok()) return Nothing();
      if (!one.values) keys.push_back(StringBody(one));
      for (const JsonText* value : one.values.value_or(std::vector<const JsonText*>{})) {
        if (set_->Allows(one, *value)) keys.push_back(Text(value->text));
      }
    }
    other = members->Matching(flat, Choice(std::move(keys)), flat.additional);
  } else if (open) {
    other = members->Others(names, flat.additional);
  }

  const auto count = static_cast<int64_t>(listed.size());
  const int64_t required =
      std::count_if(listed.begin(), listed.end(), [](const Member& m) { return m.required; });
  if (flat.min_properties > std::max<int64_t>(1, required)) {
    return fail("minProperties above 1 and above the number of required ones cannot be enforced");
  }
  const int64_t most = flat.max_properties;
  if (most >= 0 && most < count) {
    if (most < required) return Nothing();
    if (most > required) {
      return fail("maxProperties below the number of listed ones cannot be enforced");
    }
    std::erase_if(listed, [](const Member& m) { return !m.required; });
  }
  const int64_t others = most < 0 ? -1 : most - static_cast<int64_t>(listed.size());

  // `more`: what may follow behind another member; `all`: the ways to go on from here, with nothing
  // before.
  RuleTable* rules = json_->rules();
  const auto others_behind = [&](int64_t limit) {
    return Repeat(Sequence({members->Between(), other}), 0, limit);
  };
  Expr more = others == 0 ? Text("") : others_behind(others);
  std::vector<Expr> all;
  if (others != 0) all.push_back(Sequence({other, others_behind(others < 0 ? -1 : others - 1)}));
  if (flat.min_properties == 0) all.push_back(Text(""));
  for (size_t i = listed.size(); i-- > 0;) {
    const Expr one = rules->AddDefined("member", listed[i].expr);
    const Expr behind = i + 1 < listed.size() ? rules->AddDefined("more", more) : more;
    if (listed[i].required) all.clear();
    all.push_back(Sequence({one, behind}));
    const Expr next = Sequence({members->Between(), one});
    more = Sequence({listed[i].required ? next : Optional(next), behind});
  }
  return Choice(std::move(all));
}

}  // namespace seacliff::grammar
