// Which ids a request has, and how often: what penalties are reckoned from. Bookkeeping only; the
// penalties themselves are the op's (kernels/sample).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sample/op.h"

namespace seacliff {

// The ids of a request, kept for penalties; sorted by id.
class TokenCounts {
 public:
  TokenCounts() = default;
  // `more`: how many ids may be added, so that adding them allocates nothing.
  TokenCounts(std::span<const int32_t> prompt, int64_t more);

  void Add(int32_t id);  // an id of the output
  std::span<const TokenCount> counts() const { return counts_; }

 private:
  std::vector<TokenCount> counts_;
};

}  // namespace seacliff
