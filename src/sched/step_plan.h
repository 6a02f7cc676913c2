// What one step computes: for each of its sequences which tokens, where in the cache, and how many
// rows of logits; and what came of it. Integers only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sched/sequence.h"
#include "seacliff/engine.h"

namespace seacliff {

// A sequence's part of a step. Pointers and spans hold until the step is committed.
struct SequenceStep {
  const Sequence* sequence = nullptr;
  int64_t first_position = 0;    // of ids[0]
  std::span<const int32_t> ids;  // the tokens to compute
  int64_t logits = 0;            // rows wanted: those of the last `logits` tokens
  int64_t prompt_logits = 0;  // the first of them: they say how likely the prompt's next tokens are

  int32_t slot() const { return sequence->pages.slot; }
  std::span<const int32_t> window_pages() const { return sequence->pages.window; }
  std::span<const int32_t> compressed_pages() const { return sequence->pages.compressed; }
};

// A turn of a conversation that found less of its prefix than the turn before had left.
struct LostPrefix {
  uint64_t id = 0;
  int64_t expected = 0, found = 0;  // tokens
  CacheMiss reason = CacheMiss::kCold;
};

struct StepPlan {
  std::vector<RowCopy> copies;      // to make before the step, in this order
  std::vector<SequenceStep> steps;  // decodes first
  int64_t tokens = 0, logits = 0;   // over all steps
  int64_t decodes = 0;              // steps of one token that continue an answer
  bool paced = false;               // they held back the prompts: set_prompt_limit
  std::vector<LostPrefix> lost;     // of sequences that were let in
};

// What sampling made of a sequence's rows of logits behind those of its prompt.
struct SampledTokens {
  // None if no such rows were wanted; else one or more, at most one a row: token m follows row m,
  // and the tokens before the last are the drafted ones that were accepted.
  std::span<const int32_t> ids;
  bool failed = false;  // the sequence ends with Finish::kError
  bool ended = false;   // no token may follow: `ids` is empty, and it ends with Finish::kStop
};

// What a committed step came to for one sequence.
struct StepOutcome {
  uint64_t id = 0;
  int64_t kept = 0;           // of its sampled tokens: those after a stop are dropped
  int64_t prompt_logits = 0;  // rows of its step that hold, unless it failed
  int64_t prompt_done = 0;    // prompt tokens computed by this step, for the first time
  int64_t cached = 0;         // prompt tokens that came from the prefix cache
  Finish finish = Finish::kNone;
};

}  // namespace seacliff
