// How many prompt tokens a step that also carries decodes may take, so that prompts do not hold up
// those who wait for their next token: such steps stay within kStretch times the time of steps with
// decodes alone, as far as the last ones tell. No clock here; the engine measures.
#pragma once

#include <cstdint>

namespace seacliff {

class StepPacer {
 public:
  static constexpr double kStretch = 2;
  static constexpr int64_t kLeast = 16;       // a prompt goes on by so much at any rate
  static constexpr int64_t kFirst = 64;       // while nothing is known of what prompt tokens cost
  static constexpr int64_t kProbeEvery = 64;  // steps with both between two with decodes alone

  explicit StepPacer(int64_t max_tokens) : max_tokens_(max_tokens) {}

  // A step is done.
  void Record(int64_t decodes, int64_t prompt_tokens, double seconds);
  // For the next step with decodes; 0: decodes alone, to be measured.
  int64_t prompt_limit() const;

 private:
  int64_t max_tokens_;
  double decode_seconds_ = 0;  // of a step with decodes alone, on average; 0: not known
  double token_seconds_ = -1;  // that a prompt token adds, on average; below 0: not known
  int64_t last_tokens_ = 0;    // prompt tokens of the last step with both
  int64_t since_probe_ = 0;
};

}  // namespace seacliff
