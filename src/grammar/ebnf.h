// What is refused of the grammars that clients write in xgrammar's own notation, because xgrammar
// would not survive it, take very long, or leave a reply with nothing to say.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace seacliff::grammar {

// Before it is parsed: the sizes of the text, of nested groups and of each repetition.
Status CheckEbnf(std::string_view text);

// After it was: `printed` is xgrammar's print of the parsed grammar. Each rule must be able to end,
// and none may be nothing but a repetition of itself; there may not be too many, nor too many
// repetitions.
Status CheckRules(std::string_view printed);

}  // namespace seacliff::grammar
