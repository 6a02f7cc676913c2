// Building and printing of expressions. Notation: xgrammar's, a GBNF.
#include "grammar/expr.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <unordered_map>

#include "base/check.h"
#include "text/utf8.h"

namespace seacliff::grammar {
namespace {

constexpr uint32_t kLast = 0x10FFFF;

std::shared_ptr<Node> Make(Node::Kind kind) {
  auto node = std::make_shared<Node>();
  node->kind = kind;
  return node;
}

bool IsEmptyText(const Expr& e) { return e->kind == Node::Kind::kText && e->text.empty(); }

std::vector<uint32_t> CodePoints(std::string_view text) {
  std::vector<uint32_t> out;
  for (size_t i = 0; i < text.size();) {
    int length = 0;
    out.push_back(utf8::DecodeValid(text.data() + i, &length));
    i += static_cast<size_t>(length);
  }
  return out;
}

std::string PrintChar(uint32_t c, bool in_set) {
  if (c == '"' || c == '\\') return fmt::format("\\{}", static_cast<char>(c));
  if (in_set && (c == ']' || c == '[' || c == '-' || c == '^')) {
    return fmt::format("\\{}", static_cast<char>(c));
  }
  if (c >= 0x20 && c < 0x7F) return std::string(1, static_cast<char>(c));
  return fmt::format("\\U{:08X}", c);
}

std::string PrintText(std::string_view text) {
  std::string out = "\"";
  for (const uint32_t c : CodePoints(text)) out += PrintChar(c, false);
  return out + "\"";
}

std::string PrintSet(const CharSet& set) {
  std::string out = "[";
  for (const auto& [first, last] : set.ranges()) {
    out += PrintChar(first, true);
    if (last > first) out += "-" + PrintChar(last, true);
  }
  return out + "]";
}

// Single characters that are repeated at most so often, of many or of few kinds, are written out;
// more are counted while they come.
constexpr int64_t kWrittenOut = 8, kFewWrittenOut = 24;

bool OfFewKinds(const Expr& e) {
  int64_t count = 0;
  for (const auto& [first, last] : e->set.ranges()) count += last - first + 1;
  return e->kind == Node::Kind::kSet && count <= 100;
}

// A sequence or choice of what `f` makes of the parts of `e`, which is one.
template <typename F>
Expr EachPart(const Expr& e, const F& f) {
  std::vector<Expr> parts;
  for (const Expr& part : e->parts) parts.push_back(f(part));
  return e->kind == Node::Kind::kChoice ? Choice(std::move(parts)) : Sequence(std::move(parts));
}

// What is left of an expression when the rules that never end are left out.
class Pruner {
 public:
  explicit Pruner(const std::vector<char>& ends) : ends_(ends) {}

  bool Ends(const Expr& e) const {
    switch (e->kind) {
      case Node::Kind::kNothing:
        return false;
      case Node::Kind::kText:
      case Node::Kind::kMacro:
        return true;
      case Node::Kind::kSet:
        return !e->set.empty();
      case Node::Kind::kSequence:
        return std::all_of(e->parts.begin(), e->parts.end(), [&](auto& p) { return Ends(p); });
      case Node::Kind::kChoice:
        return std::any_of(e->parts.begin(), e->parts.end(), [&](auto& p) { return Ends(p); });
      case Node::Kind::kRepeat:
        return e->min == 0 || Ends(e->parts[0]);
      case Node::Kind::kRule:
        return ends_[static_cast<size_t>(e->rule)] != 0;
    }
    return false;
  }

  Expr Prune(const Expr& e) const {
    if (!Ends(e)) return Nothing();
    if (e->kind == Node::Kind::kRepeat) {
      if (!Ends(e->parts[0])) return Text("");
      auto pruned = std::make_shared<Node>(*e);
      pruned->parts[0] = Prune(e->parts[0]);
      return pruned;
    }
    if (e->kind != Node::Kind::kSequence && e->kind != Node::Kind::kChoice) return e;
    return EachPart(e, [this](const Expr& part) { return Prune(part); });
  }

 private:
  const std::vector<char>& ends_;
};

void References(const Expr& e, std::vector<int>* rules) {
  if (e->kind == Node::Kind::kRule) rules->push_back(e->rule);
  for (const Expr& part : e->parts) References(part, rules);
}

}  // namespace

CharSet::CharSet(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (auto [first, last] : ranges) {
    if (!ranges_.empty() && first <= ranges_.back().second + 1) {
      ranges_.back().second = std::max(ranges_.back().second, last);
    } else {
      ranges_.push_back({first, last});
    }
  }
  std::vector<Range> kept;  // without surrogates
  for (auto [first, last] : ranges_) {
    last = std::min(last, kLast);
    if (first < 0xD800) kept.push_back({first, std::min(last, 0xD7FFu)});
    if (last > 0xDFFF) kept.push_back({std::max(first, 0xE000u), last});
  }
  ranges_ = std::move(kept);
}

CharSet CharSet::All() { return CharSet({{0, kLast}}); }

CharSet CharSet::Of(std::string_view ascii) {
  std::vector<Range> ranges;
  for (const char c : ascii) ranges.push_back({static_cast<uint8_t>(c), static_cast<uint8_t>(c)});
  return CharSet(std::move(ranges));
}

bool CharSet::Has(uint32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [c](const Range& r) { return c >= r.first && c <= r.second; });
}

CharSet CharSet::Without(const CharSet& other) const {
  std::vector<Range> out;
  for (auto [first, last] : ranges_) {
    uint32_t from = first;
    bool open = true;
    for (const auto& [cut_first, cut_last] : other.ranges_) {
      if (cut_last < from || cut_first > last) continue;
      if (cut_first > from) out.push_back({from, cut_first - 1});
      if (cut_last >= last) {
        open = false;
        break;
      }
      from = cut_last + 1;
    }
    if (open) out.push_back({from, last});
  }
  return CharSet(std::move(out));
}

Expr Nothing() {
  static const Expr nothing = Make(Node::Kind::kNothing);
  return nothing;
}

Expr Text(std::string text) {
  auto node = Make(Node::Kind::kText);
  node->text = std::move(text);
  return node;
}

Expr Macro(std::string text) {
  auto node = Make(Node::Kind::kMacro);
  node->text = std::move(text);
  return node;
}

Expr Set(CharSet set) {
  if (set.empty()) return Nothing();
  auto node = Make(Node::Kind::kSet);
  node->set = std::move(set);
  return node;
}

Expr Sequence(std::vector<Expr> parts) {
  auto node = Make(Node::Kind::kSequence);
  std::shared_ptr<Node> joined;  // the last part, if texts were joined in it
  for (Expr& part : parts) {
    if (IsNothing(part)) return Nothing();
    if (IsEmptyText(part)) continue;
    const bool texts = part->kind == Node::Kind::kText && !node->parts.empty() &&
                       node->parts.back()->kind == Node::Kind::kText;
    if (texts) {
      if (node->parts.back() != joined) {
        joined = std::make_shared<Node>(*node->parts.back());
        node->parts.back() = joined;
      }
      joined->text += part->text;
    } else if (part->kind == Node::Kind::kSequence) {
      node->parts.insert(node->parts.end(), part->parts.begin(), part->parts.end());
    } else {
      node->parts.push_back(std::move(part));
    }
  }
  if (node->parts.empty()) return Text("");
  return node->parts.size() == 1 ? node->parts[0] : node;
}

Expr Choice(std::vector<Expr> parts) {
  auto node = Make(Node::Kind::kChoice);
  for (Expr& part : parts) {
    if (IsNothing(part)) continue;
    if (part->kind == Node::Kind::kChoice) {
      node->parts.insert(node->parts.end(), part->parts.begin(), part->parts.end());
    } else {
      node->parts.push_back(std::move(part));
    }
  }
  if (node->parts.empty()) return Nothing();
  return node->parts.size() == 1 ? node->parts[0] : node;
}

Expr Repeat(Expr part, int64_t min, int64_t max) {
  if (max >= 0 && min > max) return Nothing();
  if (max == 0 || IsEmptyText(part)) return Text("");
  if (IsNothing(part)) return min == 0 ? Text("") : Nothing();
  if (min == 1 && max == 1) return part;
  if (part->kind == Node::Kind::kRepeat && max < 0 && part->max < 0 && min <= 1 && part->min <= 1) {
    // (x+)* is x*, so that a text is read in one way instead of many.
    auto node = std::make_shared<Node>(*part);
    node->min = std::min(min, part->min);
    return node;
  }
  auto node = Make(Node::Kind::kRepeat);
  node->parts.push_back(std::move(part));
  node->min = min;
  node->max = max;
  return node;
}

int RuleTable::Add(std::string_view name) {
  std::string kept;
  for (const char c : name) {
    if (std::isalnum(static_cast<uint8_t>(c)) && kept.size() < 24) kept += c;
  }
  rules_.push_back({fmt::format("r{}_{}", rules_.size(), kept), nullptr});
  return static_cast<int>(rules_.size()) - 1;
}

void RuleTable::Define(int rule, Expr expr) {
  rules_[static_cast<size_t>(rule)].expr = std::move(expr);
}

Expr RuleTable::Ref(int rule) const {
  auto node = Make(Node::Kind::kRule);
  node->rule = rule;
  return node;
}

Expr RuleTable::AddDefined(std::string_view name, Expr expr) {
  const int rule = Add(name);
  Define(rule, std::move(expr));
  return Ref(rule);
}

// Prints expressions, and the rules that repetitions need. Those of xgrammar's own notation are
// slow where single characters repeat, as each becomes a rule within another.
class RuleTable::Printer {
 public:
  explicit Printer(const RuleTable& table) : table_(table) {}

  std::string Print(const Expr& e) {
    switch (e->kind) {
      case Node::Kind::kNothing:
        break;
      case Node::Kind::kText:
        return PrintText(e->text);
      case Node::Kind::kSet:
        return PrintSet(e->set);
      case Node::Kind::kMacro:
        return e->text;
      case Node::Kind::kRule:
        return table_.rules_[static_cast<size_t>(e->rule)].name;
      case Node::Kind::kRepeat:
        return PrintRepeat(*e);
      case Node::Kind::kSequence:
      case Node::Kind::kChoice: {
        std::string out = "(";
        for (const Expr& part : e->parts) {
          if (out.size() > 1) out += e->kind == Node::Kind::kChoice ? " | " : " ";
          out += Print(part);
        }
        return out + ")";
      }
    }
    return {};
  }
  const std::string& lines() const { return lines_; }

 private:
  std::string Name() { return fmt::format("x{}", names_++); }

  // Each way that `part` may go, with `then` behind it.
  std::string Then(const Expr& part, const std::string& then) {
    if (part->kind != Node::Kind::kChoice) return Print(part) + " " + then;
    std::string out;
    for (const Expr& one : part->parts) {
      out += (out.empty() ? "" : " | ") + Print(one) + " " + then;
    }
    return out;
  }

  std::string Star(const Expr& part) {
    if (part->kind == Node::Kind::kSet) return PrintSet(part->set) + "*";
    const std::string name = Name();
    lines_ += name + " ::= \"\" | " + Then(part, name) + "\n";
    return name;
  }

  std::string PrintRepeat(const Node& e) {
    Expr part = e.parts[0];
    if (e.min == 0 && e.max == 1) return "(\"\" | " + Print(part) + ")";
    const bool chars = e.chars || part->kind == Node::Kind::kSet;
    const int64_t most = OfFewKinds(part) ? kFewWrittenOut : kWrittenOut;
    // What comes behind the first `min`.
    std::string rest = "\"\"";
    if (e.max < 0) {
      rest = Star(part);
    } else if (e.max - e.min > most && chars) {
      const std::string name = Name();
      const std::string star = Star(part);
      lines_ += fmt::format("{}[max_chars={}] ::= {}\n", name, e.max - e.min, star);
      rest = name;
    } else if (e.max > e.min) {
      const std::string one = Once(part);
      for (int64_t i = e.min; i < e.max; ++i) {
        const std::string name = Name();
        lines_ += name + " ::= \"\" | " + (chars ? Then(part, rest) : one + " " + rest) + "\n";
        rest = name;
      }
    }
    if (part->kind == Node::Kind::kSet) {
      std::string out = "(";
      for (int64_t i = 0; i < e.min; ++i) out += PrintSet(part->set) + " ";
      return out + rest + ")";
    }
    for (int64_t i = 0; i < e.min; ++i) {
      const std::string name = Name();
      lines_ += name + " ::= " + Then(part, rest) + "\n";
      rest = name;
    }
    return rest;
  }

  std::string Once(const Expr& part) {
    if (part->kind == Node::Kind::kSet || part->kind == Node::Kind::kRule) return Print(part);
    const std::string name = Name();
    lines_ += name + " ::= " + Print(part) + "\n";
    return name;
  }

  const RuleTable& table_;
  std::string lines_;
  int names_ = 0;
};

std::string RuleTable::Print(const Expr& root) const {
  std::vector<char> ends(rules_.size(), 0);
  const Pruner pruner(ends);
  for (bool more = true; more;) {
    more = false;
    // Chains of rules lead forward: from the end, one round goes through all of them.
    for (size_t i = rules_.size(); i-- > 0;) {
      SC_CHECK(rules_[i].expr != nullptr);
      if (!ends[i] && pruner.Ends(rules_[i].expr)) ends[i] = more = true;
    }
  }
  if (!pruner.Ends(root)) return {};

  Printer printer(*this);

  // Only rules that the root leads to.
  std::vector<char> wanted(rules_.size(), 0);
  const Expr start = pruner.Prune(root);
  std::vector<int> open;
  References(start, &open);
  std::string out = "root ::= " + printer.Print(start) + "\n";
  while (!open.empty()) {
    const auto rule = static_cast<size_t>(open.back());
    open.pop_back();
    if (wanted[rule]) continue;
    wanted[rule] = 1;
    const Expr body = pruner.Prune(rules_[rule].expr);
    References(body, &open);
    out += rules_[rule].name + " ::= " + printer.Print(body) + "\n";
  }
  return out + printer.lines();
}

int64_t SizeOf(const Expr& e) {
  constexpr int64_t kMost = int64_t{1} << 40;
  // Each place where most tokens may come takes xgrammar as long as hundreds of others.
  constexpr int64_t kWide = 300;
  const auto ranges = static_cast<int64_t>(e->set.ranges().size());
  int64_t size = e->kind == Node::Kind::kText  ? static_cast<int64_t>(e->text.size())
                 : e->kind == Node::Kind::kSet ? ranges
                                               : 1;
  for (const Expr& part : e->parts) size = std::min(kMost, size + SizeOf(part));
  if (e->kind != Node::Kind::kRepeat) return size;
  const Expr& part = e->parts[0];
  const int64_t further = e->max < 0 ? 0 : e->max - e->min;
  if (e->chars || part->kind == Node::Kind::kSet) {
    const bool few = OfFewKinds(part);
    const int64_t written = e->min + (further > (few ? kFewWrittenOut : kWrittenOut) ? 1 : further);
    return size + written * (few ? 1 : std::max(kWide, size));
  }
  return std::min(kMost, size * std::max<int64_t>({1, e->min, e->max}));
}

int64_t RuleTable::Size() const {
  int64_t size = 0;
  for (const Rule& rule : rules_) size += rule.expr == nullptr ? 0 : SizeOf(rule.expr);
  return size;
}

namespace {

// One character of `set` in a JSON string.
Expr JsonSet(const CharSet& set) {
  const CharSet escaped = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  std::vector<Expr> parts = {Set(set.Without(escaped))};
  std::vector<CharSet::Range> letters;
  for (const auto& [c, letter] : std::map<char, char>{{'"', '"'},
                                                      {'\\', '\\'},
                                                      {'\b', 'b'},
                                                      {'\f', 'f'},
                                                      {'\n', 'n'},
                                                      {'\r', 'r'},
                                                      {'\t', 't'}}) {
    if (set.Has(static_cast<uint8_t>(c))) {
      letters.push_back({static_cast<uint8_t>(letter), static_cast<uint8_t>(letter)});
    }
  }
  if (!letters.empty()) parts.push_back(Sequence({Text("\\"), Set(CharSet(letters))}));
  // Other control characters, if all of them may come: nobody asks for a single one.
  const CharSet others = CharSet({{0, 7}, {0xB, 0xB}, {0xE, 0x1F}});
  if (others.Without(set).empty()) {
    parts.push_back(Sequence({Text("\\u00"), Set(CharSet::Of("01")),
                              Set(CharSet({{'0', '9'}, {'a', 'f'}, {'A', 'F'}}))}));
  }
  return Choice(std::move(parts));
}

}  // namespace

Expr JsonBody(const Expr& e) {
  switch (e->kind) {
    case Node::Kind::kSet:
      return JsonSet(e->set);
    case Node::Kind::kText: {
      const bool plain = std::all_of(e->text.begin(), e->text.end(), [](char c) {
        return static_cast<uint8_t>(c) >= 0x20 && c != '"' && c != '\\';
      });
      if (plain) return e;
      std::vector<Expr> parts;
      for (const uint32_t c : CodePoints(e->text)) parts.push_back(JsonSet(CharSet({{c, c}})));
      return Sequence(std::move(parts));
    }
    case Node::Kind::kRepeat: {
      const Expr body = Repeat(JsonBody(e->parts[0]), e->min, e->max);
      if (e->parts[0]->kind != Node::Kind::kSet || body->kind != Node::Kind::kRepeat) return body;
      auto marked = std::make_shared<Node>(*body);
      marked->chars = true;
      return marked;
    }
    case Node::Kind::kSequence:
    case Node::Kind::kChoice:
      return EachPart(e, JsonBody);
    default:
      return e;
  }
}

Expr WithoutChar(const Expr& e, uint32_t c) {
  switch (e->kind) {
    case Node::Kind::kSet:
      return Set(e->set.Without(CharSet({{c, c}})));
    case Node::Kind::kRepeat:
      return Repeat(WithoutChar(e->parts[0], c), e->min, e->max);
    case Node::Kind::kSequence:
    case Node::Kind::kChoice:
      return EachPart(e, [c](const Expr& part) { return WithoutChar(part, c); });
    default:
      return e;
  }
}

Expr AnyBut(const CharSet& chars, const std::vector<std::string>& texts) {
  struct Branch {
    bool ends = false;
    std::map<uint32_t, Branch> next;
  };
  Branch root;
  root.ends = true;  // the empty text is none either
  for (const std::string& text : texts) {
    Branch* at = &root;
    for (const uint32_t c : CodePoints(text)) at = &at->next[c];
    at->ends = true;
  }
  const auto build = [&](const auto& self, const Branch& branch) -> Expr {
    std::vector<CharSet::Range> taken;
    std::vector<Expr> parts;
    if (!branch.ends) parts.push_back(Text(""));
    for (const auto& [c, next] : branch.next) {
      taken.push_back({c, c});
      if (chars.Has(c)) parts.push_back(Sequence({Set(CharSet({{c, c}})), self(self, next)}));
    }
    const CharSet others = chars.Without(CharSet(std::move(taken)));
    parts.push_back(Sequence({Set(others), Repeat(Set(chars), 0, -1)}));
    return Choice(std::move(parts));
  };
  return build(build, root);
}

}  // namespace seacliff::grammar
