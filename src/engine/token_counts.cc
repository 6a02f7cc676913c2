// The sorted list behind TokenCounts.
#include "engine/token_counts.h"

#include <algorithm>

namespace seacliff {

TokenCounts::TokenCounts(std::span<const int32_t> prompt, int64_t more) {
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  counts_.reserve(ids.size() + static_cast<size_t>(more));
  for (const int32_t id : ids) counts_.push_back({id, 0});
}

void TokenCounts::Add(int32_t id) {
  const auto place =
      std::lower_bound(counts_.begin(), counts_.end(), id,
                       [](const TokenCount& count, int32_t value) { return count.id < value; });
  if (place != counts_.end() && place->id == id)
    ++place->count;
  else
    counts_.insert(place, {id, 1});
}

}  // namespace seacliff
