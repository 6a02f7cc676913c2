// Regular expressions, the part of ECMA 262's that is regular: read into an Expr, so that what is
// accepted here means the same to every engine. All else is refused by name.
#pragma once

#include <string_view>

#include "base/status.h"
#include "grammar/expr.h"

namespace seacliff::grammar {

enum class RegexUse {
  kWhole,   // the text as a whole; ^ and $ at its ends change nothing
  kBegin,   // from the text's beginning, up to its end only if $ says so
  kSearch,  // somewhere in the text, unless ^ and $ say where: JSON Schema's `pattern`
};

// \d, \w and \s are those of ASCII; \D and \W too, and \S is what is white space nowhere, so that
// engines with other tables agree; within [^ ] they are as wide as in any table, for the same
// reason. "." is no line end. At most 256 KiB.
Result<Expr> ParseRegex(std::string_view pattern, RegexUse use);

}  // namespace seacliff::grammar
