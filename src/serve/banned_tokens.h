// Tokens that no reply may have, as a bias that forbids them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "seacliff/text.h"

namespace seacliff::serve {

// The tokenizer's never_sampled_ids, and the rows of the model's matrix that are no tokens: there
// are `rows`. Ascending.
std::vector<std::pair<int32_t, float>> BannedTokens(const Tokenizer& tokenizer, int32_t rows);

}  // namespace seacliff::serve
