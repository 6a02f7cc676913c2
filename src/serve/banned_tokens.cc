// The ids that are banned.
#include "serve/banned_tokens.h"

#include <algorithm>

namespace seacliff::serve {

std::vector<std::pair<int32_t, float>> BannedTokens(const Tokenizer& tokenizer, int32_t rows) {
  // Large enough to forbid a token at any temperature, and still a number in every later sum.
  constexpr float kBanned = -1e9f;
  const int32_t tokens = std::min(tokenizer.vocab_size(), rows);
  std::vector<std::pair<int32_t, float>> banned;
  for (const int32_t id : tokenizer.never_sampled_ids()) {
    if (id < tokens) banned.emplace_back(id, kBanned);
  }
  for (int32_t id = tokens; id < rows; ++id) banned.emplace_back(id, kBanned);
  return banned;
}

}  // namespace seacliff::serve
