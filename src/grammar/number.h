// JSON numbers within bounds, as expressions over their digits.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "grammar/expr.h"

namespace seacliff::grammar {

// A decimal number, exact. `whole` has no leading zeros ("0" for none), `fraction` no trailing
// ones.
struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction;

  // Of a JSON number as spelt; nothing if it has more than 60 digits before or after the point.
  static std::optional<Decimal> Parse(std::string_view text);
  bool zero() const { return whole == "0" && fraction.empty(); }
  bool integer() const { return fraction.empty(); }
};
// Below 0, 0, above 0: as a is less than, equal to, greater than b.
int Compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal value;
  bool exclusive = false;
};

// Numbers have at most this many digits before the point, and behind it, or as many as a bound has:
// what every reader of JSON takes, and no model gets lost in digits.
inline constexpr int kMostDigits = 15;

// Integers from `low` to `high`; without exponent or point.
Expr IntegerWithin(const std::optional<Bound>& low, const std::optional<Bound>& high);
// All numbers; those with bounds are written without exponent.
Expr NumberWithin(const std::optional<Bound>& low, const std::optional<Bound>& high);
// Integers that `n`, 1 to 1000, divides.
Expr MultipleOf(int n, RuleTable* rules);

}  // namespace seacliff::grammar
