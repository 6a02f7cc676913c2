// Schemas that hold together: allOf, references and unions beside other keywords, taken apart into
// alternatives that stand alone.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "grammar/schema.h"

namespace seacliff::grammar {
namespace {

constexpr size_t kMostAlternatives = 200;
constexpr int kDeepest = 60;
constexpr size_t kMostWork = 100'000;  // about as many merges of small schemas

int64_t LessOf(int64_t a, int64_t b) { return a < 0 ? b : b < 0 ? a : std::min(a, b); }

int64_t Characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

// By `schema` alone: what `name` has to be, if it says so. `never` if it may not be there.
const Schema* Governing(const Schema& schema, std::string_view name) {
  const Schema* found = schema.Property(name);
  return found != nullptr ? found : schema.additional;
}

}  // namespace

// A schema of a few lines can combine others in exponentially many ways.
void SchemaSet::Work(const std::string& path, size_t pairs) {
  work_ += 1 + pairs / 1000;
  if (work_ > kMostWork) Fail(path, "too many combinations");
}

void SchemaSet::Merge(const Schema& with, Schema* into) {
  Work(with.path, (with.values && into->values ? with.values->size() * into->values->size() : 0) +
                      (with.required.size() + with.properties.size()) *
                          (into->required.size() + into->properties.size()));
  if (!status_.ok()) return;
  const Schema before = *into;
  into->says = into->says || with.says;
  into->lists = into->lists || with.lists;
  into->never = into->never || with.never;
  into->types &= with.types;
  if (with.values && into->values) {
    std::erase_if(*into->values, [&](const JsonText* one) {
      return std::none_of(with.values->begin(), with.values->end(),
                          [&](const JsonText* other) { return SameJson(*one, *other); });
    });
  } else if (with.values) {
    into->values = with.values;
  }

  const auto stricter = [](const std::optional<Bound>& b, int sign, std::optional<Bound>* out) {
    if (!b) return;
    const int order = *out ? sign * Compare(b->value, (*out)->value) : 1;
    if (order > 0 || (order == 0 && b->exclusive)) *out = b;
  };
  stricter(with.low, 1, &into->low);
  stricter(with.high, -1, &into->high);
  if (with.multiple_of > 0) {
    into->multiple_of = std::lcm(std::max<int64_t>(1, into->multiple_of), with.multiple_of);
    if (into->multiple_of > kMostMultiple) {
      Fail(with.path,
           "multiples of two numbers whose common ones are above 1000 cannot be enforced");
    }
  }

  into->min_length = std::max(into->min_length, with.min_length);
  into->max_length = LessOf(into->max_length, with.max_length);
  for (const std::string& pattern : with.patterns) {
    if (std::find(into->patterns.begin(), into->patterns.end(), pattern) == into->patterns.end()) {
      into->patterns.push_back(pattern);
    }
  }
  if (into->format.empty()) into->format = with.format;
  if (!with.format.empty() && into->format != with.format) {
    Fail(with.path, "two formats together cannot be enforced");
  }

  for (size_t i = 0; i < std::max(before.prefix.size(), with.prefix.size()); ++i) {
    const Schema* a = i < before.prefix.size() ? before.prefix[i] : before.items;
    const Schema* b = i < with.prefix.size() ? with.prefix[i] : with.items;
    const Schema* both = Both(a, b);
    if (both == nullptr) both = OfTypes(kAnyType);
    if (i < into->prefix.size()) {
      into->prefix[i] = both;
    } else {
      into->prefix.push_back(both);
    }
  }
  into->items = Both(before.items, with.items);
  into->min_items = std::max(into->min_items, with.min_items);
  into->max_items = LessOf(into->max_items, with.max_items);
  into->unique = into->unique || with.unique;

  // Patterns of names are only understood alone.
  const bool both_name = (!before.pattern_properties.empty() &&
                          (!with.properties.empty() || with.additional != nullptr ||
                           !with.pattern_properties.empty())) ||
                         (!with.pattern_properties.empty() &&
                          (!before.properties.empty() || before.additional != nullptr));
  if (both_name) {
    Fail(with.path, "patternProperties together with other properties cannot be enforced");
  }
  if (into->pattern_properties.empty()) into->pattern_properties = with.pattern_properties;
  for (auto& [name, schema] : into->properties) schema = Both(schema, Governing(with, name));
  for (const auto& [name, schema] : with.properties) {
    if (before.Property(name) == nullptr) {
      into->properties.emplace_back(name, Both(schema, before.additional));
    }
  }
  for (const std::string& name : with.required) {
    if (!into->Requires(name)) into->required.push_back(name);
  }
  into->additional = Both(before.additional, with.additional);
  into->names = Both(before.names, with.names);
  into->min_properties = std::max(into->min_properties, with.min_properties);
  into->max_properties = LessOf(into->max_properties, with.max_properties);
}

std::vector<Schema> SchemaSet::Alternatives(const Schema& schema) {
  if (schema.refs.empty() && schema.all.empty() && schema.any.empty()) return {schema};
  Work(schema.path, 0);
  if (++depth_ > kDeepest) Fail(schema.path, "refers to itself, or is nested too deep");
  Schema own = schema;
  own.refs.clear();
  own.all.clear();
  own.any.clear();
  std::vector<Schema> found = {own};
  const auto cross = [&](const std::vector<Schema>& with) {
    std::vector<Schema> all;
    for (const Schema& a : found) {
      for (const Schema& b : with) {
        all.push_back(a);
        Merge(b, &all.back());
        if (all.back().never || all.back().types == 0) all.pop_back();
        if (all.size() > kMostAlternatives) {
          Fail(schema.path, "the unions in it have too many combinations");
          return;
        }
      }
    }
    found = std::move(all);
  };
  for (const std::string& ref : schema.refs) {
    const Schema* target = Resolve(ref, schema);
    if (!status_.ok()) break;
    cross(Alternatives(*target));
  }
  for (const Schema* one : schema.all) {
    if (!status_.ok()) break;
    cross(Alternatives(*one));
  }
  for (const Schema::Group& group : schema.any) {
    std::vector<std::vector<Schema>> flat;
    std::vector<Schema> options;
    for (const Schema* option : group.options) {
      if (!status_.ok()) break;
      flat.push_back(Alternatives(*option));
      options.insert(options.end(), flat.back().begin(), flat.back().end());
    }
    for (size_t i = 0; group.one && i < flat.size(); ++i) {
      for (size_t k = 0; k < i && status_.ok(); ++k) {
        if (!Disjoint(flat[i], flat[k])) {
          Fail(group.path, fmt::format("options {} and {} may both be valid: exactly one cannot be "
                                       "enforced (anyOf can)",
                                       k, i));
        }
      }
    }
    if (status_.ok()) cross(options);
  }
  --depth_;
  return found;
}

bool SchemaSet::Disjoint(const Schema& a, const Schema& b) {
  if (depth_ > kDeepest / 2) return false;
  ++depth_;
  const bool disjoint = Disjoint(Alternatives(a), Alternatives(b));
  --depth_;
  return disjoint;
}

bool SchemaSet::Disjoint(const std::vector<Schema>& left, const std::vector<Schema>& right) {
  return std::all_of(left.begin(), left.end(), [&](const Schema& x) {
    return std::all_of(right.begin(), right.end(),
                       [&](const Schema& y) { return DisjointFlat(x, y); });
  });
}

bool SchemaSet::DisjointFlat(const Schema& x, const Schema& y) {
  Work(x.path,
       (x.values && y.values ? x.values->size() * y.values->size() : 0) +
           (x.required.size() + y.required.size()) * (x.properties.size() + y.properties.size()));
  if (!status_.ok()) return false;
  if (x.values && y.values) {
    return std::none_of(x.values->begin(), x.values->end(), [&](const JsonText* one) {
      return std::any_of(y.values->begin(), y.values->end(),
                         [&](const JsonText* other) { return SameJson(*one, *other); });
    });
  }
  const auto types = [](const Schema& s) {
    uint32_t all = s.types;
    if (!s.values) return all;
    all = 0;
    for (const JsonText* value : *s.values) all |= TypeOf(*value) & s.types;
    return all;
  };
  const uint32_t common = types(x) & types(y);
  if (common == 0) return true;
  if ((common & ~kNumber) == 0) {
    const auto above = [](const std::optional<Bound>& low, const std::optional<Bound>& high) {
      if (!low || !high) return false;
      const int order = Compare(low->value, high->value);
      return order > 0 || (order == 0 && (low->exclusive || high->exclusive));
    };
    return above(x.low, y.high) || above(y.low, x.high);
  }
  if (common != kObject) return false;
  // One requires what the other one cannot have, or has otherwise.
  const auto requires_apart = [&](const Schema& s, const Schema& t) {
    return std::any_of(s.required.begin(), s.required.end(), [&](const std::string& name) {
      const Schema* mine = Governing(s, name);
      const Schema* other = Governing(t, name);
      if (!t.pattern_properties.empty() || other == nullptr) return false;
      if (other->never) return true;
      return mine != nullptr && t.Requires(name) && Disjoint(*mine, *other);
    });
  };
  return requires_apart(x, y) || requires_apart(y, x);
}

bool SchemaSet::Allows(const Schema& flat, const JsonText& value) {
  const uint32_t type = TypeOf(value);
  if ((flat.types & type) == 0) return false;
  if ((type & kNumber) != 0) {
    const auto number = Decimal::Parse(value.text);
    if (!number) return !flat.low && !flat.high && flat.multiple_of == 0;
    const auto beyond = [&](const std::optional<Bound>& bound, int sign) {
      if (!bound) return false;
      const int order = sign * Compare(*number, bound->value);
      return order < 0 || (order == 0 && bound->exclusive);
    };
    if (beyond(flat.low, 1) || beyond(flat.high, -1)) return false;
    if (flat.multiple_of == 0) return true;
    int64_t rest = 0;
    for (const char digit : number->whole) rest = (rest * 10 + (digit - '0')) % flat.multiple_of;
    return number->integer() && rest == 0;
  }
  if (type == kString) {
    if (!flat.patterns.empty() || !flat.format.empty()) {
      Fail(flat.path, "pattern and format beside enum or const cannot be enforced");
    }
    const int64_t length = Characters(value.text);
    return length >= flat.min_length && (flat.max_length < 0 || length <= flat.max_length);
  }
  const bool limited =
      type == kArray
          ? !flat.prefix.empty() || flat.items != nullptr || flat.min_items > 0 ||
                flat.max_items >= 0 || flat.unique
          : type == kObject &&
                (!flat.properties.empty() || !flat.required.empty() || flat.additional != nullptr ||
                 !flat.pattern_properties.empty() || flat.names != nullptr ||
                 flat.min_properties > 0 || flat.max_properties >= 0);
  if (limited) {
    Fail(flat.path,
         "arrays and objects of enum or const beside other keywords about them cannot be "
         "enforced");
  }
  return true;
}

}  // namespace seacliff::grammar
