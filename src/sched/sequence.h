// A request as the scheduler sees it: token ids and three growing lengths. It knows no sampling, no
// clock and no client.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/plan.h"

namespace seacliff {

struct Sequence {
  // Set by whoever adds it.
  uint64_t id = 0;
  std::vector<int32_t> tokens;    // the prompt; what is generated is appended
  int64_t max_tokens = 0;         // the most tokens to generate
  std::vector<int32_t> stop_ids;  // generating one of these ends the sequence

  // Kept by the scheduler: computed <= tokens.size() <= prompt_len + max_tokens.
  int64_t prompt_len = 0;
  int64_t computed = 0;  // tokens whose cache entries a committed step has written
  SequencePages pages;

  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_len; }
  // Tokens known but not computed: the prompt's rest, or the one token generated last.
  int64_t remaining() const { return static_cast<int64_t>(tokens.size()) - computed; }
  // The most tokens it can come to have.
  int64_t longest() const { return prompt_len + max_tokens; }
};

}  // namespace seacliff
