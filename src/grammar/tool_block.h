// A block of tool calls (encoding.md 2.5) as an expression.
#pragma once

#include <span>

#include "base/status.h"
#include "grammar/expr.h"
#include "grammar/grammar.h"

namespace seacliff::grammar {

// From the "<" of the opening tag to the ">" of the closing one. `dsml` is the id of the DSML
// token.
Result<Expr> ToolBlockExpr(std::span<const GrammarTool> tools, const ToolBlockOptions& options,
                           ChatProfile profile, int32_t dsml, RuleTable* rules);

}  // namespace seacliff::grammar
