// The rules of one request: where in its reply it is, and what may come there.
#pragma once

#include <memory>

#include "grammar/xgrammar_wall.h"

namespace seacliff::grammar {

// `vocabulary` and what is compiled are shared, so rules may outlive the Grammars they came from.
std::unique_ptr<TokenRules> MakeTokenRules(std::shared_ptr<const Vocabulary> vocabulary,
                                           std::shared_ptr<const Grammar::Impl> grammar,
                                           const RulesOptions& options);

}  // namespace seacliff::grammar
