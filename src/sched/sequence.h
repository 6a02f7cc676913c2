// A request as the scheduler sees it: token ids and three growing lengths. It knows no sampling, no
// clock and no client.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cache/plan.h"

namespace seacliff {

struct Sequence {
  // Set by whoever adds it.
  uint64_t id = 0;
  std::vector<int32_t> tokens;       // the prompt; what is generated is appended
  int64_t max_tokens = 0;            // the most tokens to generate
  std::vector<int32_t> stop_ids;     // generating one of these ends the sequence
  int32_t priority = 0;              // lower ones go first
  std::string salt;                  // prefixes are shared among sequences of the same salt
  uint64_t turn = 0, continues = 0;  // seacliff/engine.h
  bool background = false;           // likewise
  bool scores = false;               // the logits behind each of its prompt's tokens are wanted

  // Kept by the scheduler: computed <= tokens.size() <= prompt_len + max_tokens.
  uint64_t arrival = 0;  // the order of Add
  int64_t prompt_len = 0;
  int64_t computed = 0;          // tokens whose cache entries a committed step has written
  int64_t furthest = 0;          // the most of them so far: more than `computed` after a preemption
  int64_t cached = 0;            // those that it found when it began
  int64_t paced_from = 0;        // tokens before do not give way to decodes
  int64_t kept = 0;              // where it started or left the last wanted snapshot
  int64_t scored = 0;            // if it scores: prompt tokens whose logits there were
  std::vector<uint64_t> hashes;  // of complete blocks (cache/prefix_index.h)
  PrefixMatch found;             // when it was let in, until it has begun
  SequencePages pages;
  // Positions where others begin to differ: a snapshot there will be used again.
  std::vector<int64_t> branches;
  int64_t awaited = 0;   // the position that others wait for in this plan; 0: none
  bool begun = false;    // it was in a step
  bool planned = false;  // it is in the plan that is out
  bool starved = false;  // it got nothing for want of pages
  bool failed = false;   // what it computed is not to be trusted

  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_len; }
  // Tokens known but not computed: the prompt's rest, or the one token generated last.
  int64_t remaining() const { return static_cast<int64_t>(tokens.size()) - computed; }
  // The most tokens it can come to have.
  int64_t longest() const { return prompt_len + max_tokens; }
  // Logits of prompt tokens are still wanted; the last one's say what is generated.
  bool scoring() const { return scores && scored < prompt_len - 1; }
  TokenChain chain() const { return {salt, tokens, hashes}; }
  // What may come from the cache: nothing whose logits are wanted.
  TokenChain reusable() const {
    if (!scoring()) return chain();
    const auto end = static_cast<size_t>(scored) + 1;
    return {salt, std::span(tokens).first(end),
            std::span(hashes).first(std::min(hashes.size(), end / kPageTokens))};
  }
};

// Whether `a` goes before `b`.
inline bool Before(const Sequence& a, const Sequence& b) {
  if (a.background != b.background) return b.background;
  return a.priority != b.priority ? a.priority < b.priority : a.arrival < b.arrival;
}

}  // namespace seacliff
