// A recursive-descent parser of regular expressions.
#include "grammar/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/utf8.h"

namespace seacliff::grammar {
namespace {

constexpr size_t kMostText = 256 << 10;  // bytes
constexpr int kDeepest = 50;
constexpr int64_t kMostRepeats = 10'000;

CharSet Digits() { return CharSet({{'0', '9'}}); }
CharSet WordChars() { return CharSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}); }
CharSet Ascii() { return CharSet({{0, 0x7F}}); }
CharSet Spaces() { return CharSet({{'\t', '\r'}, {' ', ' '}}); }
CharSet LineEnds() { return CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}); }
// White space by any table.
CharSet WideSpaces() {
  return CharSet({{'\t', '\r'},
                  {0x1C, ' '},
                  {0x85, 0x85},
                  {0xA0, 0xA0},
                  {0x1680, 0x1680},
                  {0x180E, 0x180E},
                  {0x2000, 0x200B},
                  {0x2028, 0x2029},
                  {0x202F, 0x202F},
                  {0x205F, 0x2060},
                  {0x3000, 0x3000},
                  {0xFEFF, 0xFEFF}});
}

// An expression, and whether ^ and $ stand at its ends.
struct Anchored {
  Expr expr;
  bool begin = false, end = false;
};

class Parser {
 public:
  explicit Parser(std::string_view pattern) : text_(pattern) {}

  Result<Expr> Parse(RegexUse use) {
    std::vector<Anchored> found = Alternatives(true);
    if (error_.empty() && at_ < text_.size()) Fail("unmatched ')'");
    if (!error_.empty()) return InvalidArgument(error_);
    std::vector<Expr> all;
    for (Anchored& one : found) {
      const Expr around = Repeat(Set(CharSet::All()), 0, -1);
      std::vector<Expr> parts;
      if (use == RegexUse::kSearch && !one.begin) parts.push_back(around);
      parts.push_back(one.expr);
      if (use != RegexUse::kWhole && !one.end) parts.push_back(around);
      all.push_back(Sequence(std::move(parts)));
    }
    return Choice(std::move(all));
  }

 private:
  bool ok() const { return error_.empty(); }
  void Fail(std::string_view what) {
    if (ok()) error_ = fmt::format("regular expression, character {}: {}", at_ + 1, what);
  }
  bool Peek(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool Take(char c) {
    if (!Peek(c)) return false;
    ++at_;
    return true;
  }
  uint32_t TakeChar() {
    int length = 0;
    const uint32_t c = utf8::DecodeValid(text_.data() + at_, &length);
    at_ += static_cast<size_t>(length);
    return c;
  }

  // Up to ")" or the end. `outside`: ^ and $ may stand at the ends of each alternative.
  std::vector<Anchored> Alternatives(bool outside) {
    std::vector<Anchored> all;
    if (++depth_ > kDeepest) Fail("groups nested too deep");
    do {
      for (Anchored& one : OneAlternative(outside)) all.push_back(std::move(one));
    } while (ok() && Take('|'));
    --depth_;
    return all;
  }

  std::vector<Anchored> OneAlternative(bool outside) {
    Anchored one;
    std::vector<Expr> parts;
    if (outside) one.begin = Take('^');
    while (ok() && at_ < text_.size() && !Peek('|') && !Peek(')')) {
      if (Peek('$') && outside &&
          (at_ + 1 == text_.size() || text_[at_ + 1] == '|' || text_[at_ + 1] == ')')) {
        ++at_;
        one.end = true;
        break;
      }
      // A group that is all of the alternative: its own alternatives may have anchors.
      if (outside && parts.empty() && !one.begin && Peek('(')) {
        const size_t back = at_;
        std::vector<Anchored> inner;
        if (Group(true, &inner) && (at_ == text_.size() || Peek('|') || Peek(')'))) return inner;
        if (!ok()) error_.clear();  // said again below, if it still is wrong
        at_ = back;
      }
      parts.push_back(Quantified());
    }
    one.expr = Sequence(std::move(parts));
    return {std::move(one)};
  }

  bool Group(bool outside, std::vector<Anchored>* inner) {
    Take('(');
    if (Take('?')) {
      if (Take('<') && !Peek('=') && !Peek('!')) {
        while (at_ < text_.size() && !Peek('>')) ++at_;
        if (!Take('>')) Fail("unclosed name of a group");
      } else if (!Take(':')) {
        Fail(Peek('=') || Peek('!') ? "look-ahead and look-behind cannot be enforced"
                                    : "flags and special groups cannot be enforced");
      }
    }
    if (!ok()) return false;
    *inner = Alternatives(outside);
    if (ok() && !Take(')')) Fail("unclosed '('");
    return ok();
  }

  Expr Quantified() {
    const Expr atom = Atom();
    if (!ok()) return Nothing();
    int64_t min = 1, max = 1;
    if (Take('*')) {
      min = 0, max = -1;
    } else if (Take('+')) {
      max = -1;
    } else if (Take('?')) {
      min = 0;
    } else if (Peek('{') && !Braces(&min, &max)) {
      return Nothing();
    } else if (min == 1 && max == 1 && (at_ == 0 || text_[at_ - 1] != '}')) {
      return atom;
    }
    Take('?');  // as few as possible: the same texts
    if (Peek('*') || Peek('+') || Peek('?') || Peek('{')) Fail("two quantifiers in a row");
    return Repeat(atom, min, max);
  }

  bool Number(int64_t* n) {
    if (at_ >= text_.size() || text_[at_] < '0' || text_[at_] > '9') return false;
    for (*n = 0; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      *n = std::min<int64_t>(*n * 10 + (text_[at_] - '0'), kMostRepeats + 1);
    }
    return true;
  }

  bool Braces(int64_t* min, int64_t* max) {
    ++at_;
    bool good = Number(min);
    *max = *min;
    if (good && Take(',')) {
      *max = -1;
      if (!Peek('}')) good = Number(max);
    }
    good = good && Take('}');
    if (!good || (*max >= 0 && *min > *max)) Fail("what stands in {} is no range");
    if (*min > kMostRepeats || *max > kMostRepeats) Fail("more than 10000 repetitions");
    return ok();
  }

  Expr Atom() {
    switch (text_[at_]) {
      case '(': {
        std::vector<Anchored> inner;
        if (!Group(false, &inner)) return Nothing();
        std::vector<Expr> parts;
        for (Anchored& one : inner) parts.push_back(std::move(one.expr));
        return Choice(std::move(parts));
      }
      case '[':
        return Class();
      case '.':
        ++at_;
        return Set(CharSet::All().Without(LineEnds()));
      case '^':
      case '$':
        Fail("an anchor within the expression cannot be enforced");
        return Nothing();
      case '*':
      case '+':
      case '?':
        Fail("a quantifier behind nothing");
        return Nothing();
      case '{':
      case '}':
      case ']':
        Fail("a bracket alone has to be written with a backslash");
        return Nothing();
      case '\\': {
        const auto set = Escape(Place::kOutside);
        return set ? Set(*set) : Nothing();
      }
      default: {
        const size_t from = at_;
        TakeChar();
        return Text(std::string(text_.substr(from, at_ - from)));
      }
    }
  }

  Expr Class() {
    ++at_;
    const bool negated = Take('^');
    const Place place = negated ? Place::kNegatedClass : Place::kClass;
    std::vector<CharSet::Range> all;
    while (ok() && !Peek(']')) {
      if (at_ >= text_.size()) {
        Fail("unclosed '['");
        return Nothing();
      }
      const auto first = ClassChar(place);
      if (!first) return Nothing();
      if (Peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const auto last = ClassChar(place);
        if (!last) return Nothing();
        const auto single = [](const CharSet& set) {
          return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].second;
        };
        if (!single(*first) || !single(*last) ||
            first->ranges()[0].first > last->ranges()[0].first) {
          Fail("a range of characters that is none");
          return Nothing();
        }
        all.push_back({first->ranges()[0].first, last->ranges()[0].first});
      } else {
        all.insert(all.end(), first->ranges().begin(), first->ranges().end());
      }
    }
    Take(']');
    if (all.empty()) Fail("an empty class");
    CharSet set(std::move(all));
    return Set(negated ? CharSet::All().Without(set) : std::move(set));
  }

  // What a negated class leaves out is taken as wide as any table has it: what is left is then as
  // narrow as everywhere else.
  enum class Place { kOutside, kClass, kNegatedClass };

  std::optional<CharSet> ClassChar(Place place) {
    if (Peek('\\')) return Escape(place);
    if (Peek('[') && at_ + 1 < text_.size() && text_[at_ + 1] == ':') {
      Fail("a POSIX class cannot be enforced");
      return std::nullopt;
    }
    const uint32_t c = TakeChar();
    return CharSet({{c, c}});
  }

  std::optional<CharSet> Escape(Place place) {
    const bool widest = place == Place::kNegatedClass;
    const CharSet most = widest ? CharSet::All() : Ascii();
    ++at_;
    if (at_ >= text_.size()) {
      Fail("a backslash at the end");
      return std::nullopt;
    }
    const auto one = [](uint32_t c) { return CharSet({{c, c}}); };
    const char c = text_[at_];
    switch (c) {
      case 'd':
        ++at_;
        return Digits();
      case 'D':
        ++at_;
        return most.Without(Digits());
      case 'w':
        ++at_;
        return WordChars();
      case 'W':
        ++at_;
        return most.Without(WordChars());
      case 's':
        ++at_;
        return widest ? WideSpaces() : Spaces();
      case 'S':
        ++at_;
        return CharSet::All().Without(widest ? Spaces() : WideSpaces());
      case 'n':
        ++at_;
        return one('\n');
      case 'r':
        ++at_;
        return one('\r');
      case 't':
        ++at_;
        return one('\t');
      case 'f':
        ++at_;
        return one('\f');
      case 'v':
        ++at_;
        return one('\v');
      case 'x':
      case 'u':
        return CodePoint();
      case 'b':
      case 'B':
        Fail(place == Place::kOutside ? "a word boundary cannot be enforced"
                                      : "\\b in a class cannot be enforced");
        return std::nullopt;
      case 'p':
      case 'P':
        Fail("classes of Unicode cannot be enforced");
        return std::nullopt;
      default:
        break;
    }
    if (std::isalnum(static_cast<uint8_t>(c))) {
      Fail(c >= '1' && c <= '9' ? "a back reference cannot be enforced" : "an unknown escape");
      return std::nullopt;
    }
    return one(TakeChar());
  }

  // \xHH, \uHHHH or two of these that are a surrogate pair, from the letter on.
  std::optional<CharSet> CodePoint() {
    const int digits = text_[at_++] == 'x' ? 2 : 4;
    auto c = Hex(digits);
    if (c && *c >= 0xD800 && *c < 0xE000) {
      const bool pair = *c < 0xDC00 && Take('\\') && Take('u');
      const auto low = pair ? Hex(4) : std::nullopt;
      if (!low || *low < 0xDC00 || *low >= 0xE000) {
        Fail("a surrogate without the other half of its pair");
        return std::nullopt;
      }
      c = 0x10000 + ((*c - 0xD800) << 10) + (*low - 0xDC00);
    }
    if (!c) return std::nullopt;
    return CharSet({{*c, *c}});
  }

  std::optional<uint32_t> Hex(int digits) {
    uint32_t c = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char h = at_ < text_.size() ? text_[at_] : ' ';
      const int value = h >= '0' && h <= '9'   ? h - '0'
                        : h >= 'a' && h <= 'f' ? h - 'a' + 10
                        : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                               : -1;
      if (value < 0) {
        Fail("an unfinished \\x or \\u");
        return std::nullopt;
      }
      c = c << 4 | static_cast<uint32_t>(value);
    }
    return c;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  std::string error_;
};

}  // namespace

Result<Expr> ParseRegex(std::string_view pattern, RegexUse use) {
  if (pattern.size() > kMostText) return InvalidArgument("regular expression: longer than 256 KiB");
  if (!utf8::IsValid(pattern)) return InvalidArgument("regular expression: not valid UTF-8");
  return Parser(pattern).Parse(use);
}

}  // namespace seacliff::grammar
