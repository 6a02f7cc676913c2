// Ranges of numbers by their digits: equal to a bound's beginning, and beyond it at some digit.
#include "grammar/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

namespace seacliff::grammar {
namespace {

constexpr size_t kLongest = 60;

Expr DigitsFrom(char first, char last) {
  if (first > last) return Nothing();
  return Set(CharSet({{static_cast<uint8_t>(first), static_cast<uint8_t>(last)}}));
}
Expr AnyDigits(int64_t min, int64_t max) { return Repeat(DigitsFrom('0', '9'), min, max); }

// As many digits as `d` has, worth at least, or at most, as much.
Expr AtLeast(std::string_view d) {
  if (d.empty()) return Text("");
  const auto rest = static_cast<int64_t>(d.size()) - 1;
  return Choice({Sequence({DigitsFrom(d[0], d[0]), AtLeast(d.substr(1))}),
                 Sequence({DigitsFrom(static_cast<char>(d[0] + 1), '9'), AnyDigits(rest, rest)})});
}
Expr AtMost(std::string_view d, char lowest) {
  if (d.empty()) return Text("");
  const auto rest = static_cast<int64_t>(d.size()) - 1;
  const Expr below = DigitsFrom(lowest, static_cast<char>(d[0] - 1));
  return Choice(
      {d[0] < lowest ? Nothing() : Sequence({DigitsFrom(d[0], d[0]), AtMost(d.substr(1), '0')}),
       Sequence({below, AnyDigits(rest, rest)})});
}
// Of equal length.
Expr Between(std::string_view low, std::string_view high) {
  if (low.empty()) return Text("");
  if (low[0] == high[0]) {
    return Sequence({DigitsFrom(low[0], low[0]), Between(low.substr(1), high.substr(1))});
  }
  const auto rest = static_cast<int64_t>(low.size()) - 1;
  return Choice(
      {Sequence({DigitsFrom(low[0], low[0]), AtLeast(low.substr(1))}),
       Sequence({DigitsFrom(static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
                 AnyDigits(rest, rest)}),
       Sequence({DigitsFrom(high[0], high[0]), AtMost(high.substr(1), '0')})});
}

bool Less(std::string_view a, std::string_view b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}
std::string PlusOne(std::string digits) {
  for (size_t i = digits.size(); i-- > 0;) {
    if (digits[i] != '9') {
      ++digits[i];
      return digits;
    }
    digits[i] = '0';
  }
  return "1" + digits;
}
std::string MinusOne(std::string digits) {  // not of "0"
  for (size_t i = digits.size(); i-- > 0;) {
    if (digits[i] != '0') {
      --digits[i];
      break;
    }
    digits[i] = '9';
  }
  const size_t first = digits.find_first_not_of('0');
  return first == std::string::npos ? "0" : digits.substr(first);
}

// Whole numbers from `low` to `high` (none: no limit) without a sign.
Expr Whole(const std::string& low, const std::optional<std::string>& high) {
  if (high && Less(*high, low)) return Nothing();
  if (high && high->size() == low.size()) return Between(low, *high);
  // "0" has no further digits, so longer numbers begin with 1 to 9 as all others do.
  std::vector<Expr> parts = {AtLeast(low)};
  const auto longer = static_cast<int64_t>(low.size());  // further digits of the next length
  if (!high) {
    const int64_t most = std::max<int64_t>(kMostDigits - 1, longer);
    parts.push_back(Sequence({DigitsFrom('1', '9'), AnyDigits(longer, most)}));
  } else {
    const auto last = static_cast<int64_t>(high->size()) - 2;
    if (last >= longer) {
      parts.push_back(Sequence({DigitsFrom('1', '9'), AnyDigits(longer, last)}));
    }
    parts.push_back(AtMost(*high, '1'));
  }
  return Choice(std::move(parts));
}

// What may stand behind the digits of a whole number: nothing, or a point and digits, worth `low`
// to `high` as parts of 1 (none: no limit), the bounds themselves only if not exclusive.
struct Edge {
  std::string digits;  // without trailing zeros
  bool exclusive = false;
};
Expr Fraction(const std::optional<Edge>& low, const std::optional<Edge>& high, int64_t most) {
  const auto zeros = [&](int64_t least, int64_t room) {
    return Repeat(Text("0"), least, std::max(least, room));
  };
  const auto any = [&](int64_t room) { return AnyDigits(0, std::max<int64_t>(0, room)); };
  // Digits that bring what stands before them, equal to `edge` up to i, above or below it. Where i
  // is 0 they are at least one.
  const auto above = [&](const auto& self, const std::string& edge, bool exclusive, size_t i,
                         int64_t room) -> Expr {
    if (i == edge.size()) {
      if (!exclusive) return AnyDigits(i == 0 ? 1 : 0, std::max<int64_t>(1, room));
      // Not zeros alone.
      const int64_t half = (std::max<int64_t>(1, room) - 1) / 2;
      return Sequence({zeros(0, half), DigitsFrom('1', '9'), any(half)});
    }
    return Choice(
        {Sequence({DigitsFrom(edge[i], edge[i]), self(self, edge, exclusive, i + 1, room - 1)}),
         Sequence({DigitsFrom(static_cast<char>(edge[i] + 1), '9'), any(room - 1)})});
  };
  const auto below = [&](const auto& self, const std::string& edge, bool exclusive, size_t i,
                         int64_t room) -> Expr {
    // Fewer digits than the edge are worth less than it, as its last one is not 0.
    if (i == edge.size()) return exclusive ? Nothing() : zeros(i == 0 ? 1 : 0, room);
    return Choice(
        {i > 0 ? Text("") : Nothing(),
         Sequence({DigitsFrom(edge[i], edge[i]), self(self, edge, exclusive, i + 1, room - 1)}),
         Sequence({DigitsFrom('0', static_cast<char>(edge[i] - 1)), any(room - 1)})});
  };
  const auto both = [&](const auto& self, const Edge& a, const Edge& b, size_t i,
                        int64_t room) -> Expr {
    if (i == a.digits.size()) {
      // What is equal to `a` up to here is at least `a`; `b` still limits it.
      const std::string rest = b.digits.substr(std::min(i, b.digits.size()));
      if (!a.exclusive) {
        const bool may_end = i > 0 && (!rest.empty() || !b.exclusive);
        return Choice({may_end ? Text("") : Nothing(), below(below, rest, b.exclusive, 0, room)});
      }
      // More than zeros, and below `b`.
      if (rest.empty()) return Nothing();
      std::vector<Expr> parts;
      if (rest[0] == '0') {
        Edge next_a{"", true}, next_b{rest.substr(1), b.exclusive};
        parts.push_back(Sequence({Text("0"), self(self, next_a, next_b, 0, room - 1)}));
      } else {
        parts.push_back(Sequence({Text("0"), above(above, "", true, 0, room - 1)}));
        parts.push_back(Sequence({DigitsFrom('1', static_cast<char>(rest[0] - 1)), any(room - 1)}));
        parts.push_back(Sequence({DigitsFrom(rest[0], rest[0]),
                                  below(below, rest.substr(1), b.exclusive, 0, room - 1)}));
        if (rest.size() > 1 || !b.exclusive) parts.push_back(DigitsFrom(rest[0], rest[0]));
      }
      return Choice(std::move(parts));
    }
    if (i >= b.digits.size()) return Nothing();
    const char x = a.digits[i], y = b.digits[i];
    if (x > y) return Nothing();
    if (x == y) return Sequence({DigitsFrom(x, x), self(self, a, b, i + 1, room - 1)});
    const bool may_end = i + 1 < b.digits.size() || !b.exclusive;
    const Expr upper = Choice({may_end ? Text("") : Nothing(),
                               below(below, b.digits.substr(i + 1), b.exclusive, 0, room - 1)});
    return Choice(
        {Sequence({DigitsFrom(x, x), above(above, a.digits, a.exclusive, i + 1, room - 1)}),
         Sequence({DigitsFrom(static_cast<char>(x + 1), static_cast<char>(y - 1)), any(room - 1)}),
         Sequence({DigitsFrom(y, y), upper})});
  };

  const bool nothing_good = (!low || (low->digits.empty() && !low->exclusive)) &&
                            (!high || !high->digits.empty() || !high->exclusive);
  const int64_t room =
      std::max<int64_t>({most, low ? static_cast<int64_t>(low->digits.size()) + 1 : 0,
                         high ? static_cast<int64_t>(high->digits.size()) : 0});
  Expr digits;
  if (low && high) {
    digits = both(both, *low, *high, 0, room);
  } else if (low) {
    digits = above(above, low->digits, low->exclusive, 0, room);
  } else if (high) {
    digits = below(below, high->digits, high->exclusive, 0, room);
  } else {
    digits = AnyDigits(1, room);
  }
  return Choice({nothing_good ? Text("") : Nothing(), Sequence({Text("."), digits})});
}

// Numbers from `low` to `high`, neither negative.
Expr Positive(const Bound& low, const std::optional<Bound>& high) {
  const auto room = [](const std::string& whole) {
    return std::max<int64_t>(1, kMostDigits - static_cast<int64_t>(whole.size()));
  };
  const Edge from{low.value.fraction, low.exclusive};
  std::vector<Expr> parts;
  if (high && high->value.whole == low.value.whole) {
    return Sequence(
        {Text(low.value.whole),
         Fraction(from, Edge{high->value.fraction, high->exclusive}, room(low.value.whole))});
  }
  if (high && Less(high->value.whole, low.value.whole)) return Nothing();
  parts.push_back(Sequence({Text(low.value.whole), Fraction(from, {}, room(low.value.whole))}));
  const std::string next = PlusOne(low.value.whole);
  if (high) {
    const std::string last = MinusOne(high->value.whole);
    parts.push_back(Sequence({Whole(next, last), Fraction({}, {}, room(high->value.whole))}));
    parts.push_back(
        Sequence({Text(high->value.whole), Fraction({}, Edge{high->value.fraction, high->exclusive},
                                                    room(high->value.whole))}));
  } else {
    parts.push_back(Sequence({Whole(next, {}), Fraction({}, {}, room(low.value.whole))}));
  }
  return Choice(std::move(parts));
}

std::optional<Bound> Negated(const std::optional<Bound>& bound) {
  if (!bound) return {};
  Bound out = *bound;
  out.value.negative = !out.value.negative && !out.value.zero();
  return out;
}

// Both halves of a range, each without its sign: `positive(low, high)` of non-negative bounds.
template <typename F>
Expr BySign(const std::optional<Bound>& low, const std::optional<Bound>& high, const F& positive) {
  const auto below_zero = [](const std::optional<Bound>& b) { return b && b->value.negative; };
  const Bound zero{}, above_zero{{}, true};
  std::vector<Expr> parts;
  if (!below_zero(high)) {  // 0 and more
    parts.push_back(positive(low && !below_zero(low) ? *low : zero, high));
  }
  const bool negatives = !low || below_zero(low);
  if (negatives) {  // less than 0, turned around
    const std::optional<Bound> least = below_zero(high) ? Negated(high) : std::nullopt;
    parts.push_back(Sequence({Text("-"), positive(least ? *least : above_zero, Negated(low))}));
  }
  return Choice(std::move(parts));
}

}  // namespace

std::optional<Decimal> Decimal::Parse(std::string_view text) {
  Decimal out;
  if (!text.empty() && text[0] == '-') {
    out.negative = true;
    text.remove_prefix(1);
  }
  const size_t e = text.find_first_of("eE");
  long exponent = 0;
  if (e != std::string_view::npos) {
    const std::string power(text.substr(e + 1));
    if (power.size() > 5) return {};
    exponent = std::strtol(power.c_str(), nullptr, 10);
    text = text.substr(0, e);
  }
  const size_t point = text.find('.');
  std::string whole(text.substr(0, point));
  std::string fraction(point == std::string_view::npos ? "" : text.substr(point + 1));
  if (whole.size() + fraction.size() > 2 * kLongest || std::labs(exponent) > 400) return {};
  for (; exponent > 0; --exponent) {
    whole += fraction.empty() ? '0' : fraction[0];
    if (!fraction.empty()) fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    fraction.insert(fraction.begin(), whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  while (!fraction.empty() && fraction.back() == '0') fraction.pop_back();
  const size_t first = whole.find_first_not_of('0');
  whole = first == std::string::npos ? "0" : whole.substr(first);
  if (whole.size() > kLongest || fraction.size() > kLongest) return {};
  out.whole = std::move(whole);
  out.fraction = std::move(fraction);
  if (out.zero()) out.negative = false;
  return out;
}

int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int order = 0;
  if (a.whole != b.whole) {
    order = Less(a.whole, b.whole) ? -1 : 1;
  } else {
    order = a.fraction.compare(b.fraction);
    order = order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  return a.negative ? -order : order;
}

Expr IntegerWithin(const std::optional<Bound>& low, const std::optional<Bound>& high) {
  return BySign(low, high, [](const Bound& from, const std::optional<Bound>& to) {
    std::string first = from.value.whole;
    if (!from.value.integer() || from.exclusive) first = PlusOne(first);
    std::optional<std::string> last;
    if (to) {
      last = to->value.whole;
      if (to->value.integer() && to->exclusive) {
        if (*last == "0") return Nothing();
        last = MinusOne(*last);
      }
    }
    return Whole(first, last);
  });
}

Expr NumberWithin(const std::optional<Bound>& low, const std::optional<Bound>& high) {
  if (!low && !high) {
    const Expr exponent =
        Sequence({Set(CharSet::Of("eE")), Optional(Set(CharSet::Of("+-"))), AnyDigits(1, 2)});
    return Sequence(
        {Optional(Text("-")),
         Choice({Text("0"), Sequence({DigitsFrom('1', '9'), AnyDigits(0, kMostDigits - 1)})}),
         Optional(Sequence({Text("."), AnyDigits(1, kMostDigits)})), Optional(exponent)});
  }
  return BySign(low, high, Positive);
}

Expr MultipleOf(int n, RuleTable* rules) {
  // A rule for each remainder of the digits so far.
  std::vector<int> states;
  for (int i = 0; i < n; ++i) states.push_back(rules->Add(fmt::format("mod{}", i)));
  const auto step = [&](int from, char first) {
    std::vector<Expr> parts;
    for (char digit = first; digit <= '9'; ++digit) {
      const int next = (from * 10 + (digit - '0')) % n;
      parts.push_back(
          Sequence({DigitsFrom(digit, digit), rules->Ref(states[static_cast<size_t>(next)])}));
    }
    return parts;
  };
  for (int i = 0; i < n; ++i) {
    std::vector<Expr> parts = step(i, '0');
    if (i == 0) parts.push_back(Text(""));
    rules->Define(states[static_cast<size_t>(i)], Choice(std::move(parts)));
  }
  return Choice({Text("0"), Sequence({Optional(Text("-")), Choice(step(0, '1'))})});
}

}  // namespace seacliff::grammar
