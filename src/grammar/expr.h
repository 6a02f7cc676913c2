// Expressions over characters, and rules that they may refer to: what schemas, regular expressions
// and tool blocks are turned into, and what is printed as the grammar that xgrammar compiles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace seacliff::grammar {

// A set of characters: ascending ranges, both ends included, with gaps between them. Never holds
// surrogates, so that what it matches is UTF-8.
class CharSet {
 public:
  using Range = std::pair<uint32_t, uint32_t>;
  CharSet() = default;
  explicit CharSet(std::vector<Range> ranges);  // in any order, may overlap
  static CharSet All();
  static CharSet Of(std::string_view ascii);

  const std::vector<Range>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool Has(uint32_t c) const;
  CharSet Without(const CharSet& other) const;

 private:
  std::vector<Range> ranges_;
};

struct Node;
using Expr = std::shared_ptr<const Node>;

struct Node {
  enum class Kind { kNothing, kText, kSet, kSequence, kChoice, kRepeat, kRule, kMacro };
  Kind kind = Kind::kNothing;
  std::string text;           // kText: UTF-8; kMacro: of xgrammar's notation
  CharSet set;                // kSet
  std::vector<Expr> parts;    // kSequence, kChoice; kRepeat: one
  int64_t min = 0, max = -1;  // kRepeat; max -1: no limit
  bool chars = false;         // kRepeat: of single characters, escaped or not
  int rule = 0;               // kRule
};

Expr Nothing();  // matches no text, not even the empty one
Expr Text(std::string text);
Expr Set(CharSet set);
Expr Sequence(std::vector<Expr> parts);
Expr Choice(std::vector<Expr> parts);
Expr Repeat(Expr part, int64_t min, int64_t max);
inline Expr Optional(Expr part) { return Repeat(std::move(part), 0, 1); }
Expr Macro(std::string text);

inline bool IsNothing(const Expr& e) { return e->kind == Node::Kind::kNothing; }

class RuleTable {
 public:
  // `name` is for people: letters and digits of it are kept.
  int Add(std::string_view name);
  void Define(int rule, Expr expr);
  Expr Ref(int rule) const;
  Expr AddDefined(std::string_view name, Expr expr);

  // The grammar whose rule "root" is `root`, as text; empty if no text is matched. What can never
  // end (a list that must hold itself) is left out.
  std::string Print(const Expr& root) const;
  // States that the grammar has when repetitions are written out, about.
  int64_t Size() const;

 private:
  class Printer;
  struct Rule {
    std::string name;
    Expr expr;
  };
  std::vector<Rule> rules_;
};

// As if each repetition was written out.
int64_t SizeOf(const Expr& expr);

// Characters that an expression without rules can match: at least and at most (-1: no limit).
struct Lengths {
  int64_t min = 0, max = 0;
};
Lengths LengthsOf(const Expr& expr);
// `expr`, but for what has fewer than `min` or more than `max` (-1: no limit) characters. Null if
// it is not built simply enough: at most one of its parts in sequence may vary in length, and that
// one must repeat single characters.
Expr WithLength(const Expr& expr, int64_t min, int64_t max);

// The body of a JSON string, escapes included, whose value `expr` matches.
Expr JsonBody(const Expr& expr);
// Without the character `c`, as long as it stands in sets.
Expr WithoutChar(const Expr& expr, uint32_t c);
// One or more characters of `chars`, but none of `texts`, which are UTF-8.
Expr AnyBut(const CharSet& chars, const std::vector<std::string>& texts);

}  // namespace seacliff::grammar
