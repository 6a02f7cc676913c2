// How many prompt tokens a step that also carries decodes may take, so that prompts do not hold up
// those who wait for their next token: such steps stay within kStretch times the time of steps with
// decodes alone, as far as the last ones tell. Where a step with both takes more than that anyway
// (a device runs decodes alone as a graph, with kernels of their own), it stays within kStretch
// times the least that a step with both takes: a few tokens would cost as much as many. Where more
// prompts than decodes are under way, each of these gets the same share of the time: many prompts
// that came at once are not held up either.
//
// Where a step's whole room costs far less for each token than few tokens do, as on a device that
// reads most weights for either, such steps stand between kChunkEvery with decodes alone, if that
// brings prompts on nearly as fast: at most one in a hundred tokens then waits long, and the others
// do not wait at all. Steps that take a prompt's first tokens unpaced count among them: later ones
// make up for these. No clock here; the engine measures.
#pragma once

#include <cstdint>

namespace seacliff {

class StepPacer {
 public:
  static constexpr double kStretch = 2;
  static constexpr int64_t kLeast = 16;  // a prompt goes on by so much at any rate
  // Steps with both between two with decodes alone, and between two with few prompt tokens.
  static constexpr int64_t kProbeEvery = 64;
  static constexpr int64_t kChunkEvery = 144;
  static constexpr double kMostOwed = 4;  // times that, however many unpaced steps came before

  explicit StepPacer(int64_t max_tokens) : max_tokens_(max_tokens) {}

  // A step is done; `paced`: prompt_limit held for it.
  void Record(int64_t decodes, int64_t prompt_tokens, double seconds, bool paced = true);
  // For the next step with decodes, `decodes` > 0 of them, while `prompts` requests wait for theirs
  // to be done; 0: decodes alone.
  int64_t prompt_limit(int64_t prompts, int64_t decodes);

 private:
  int64_t max_tokens_;
  // On average; 0: not known.
  double decode_seconds_ = 0;  // of a step with decodes alone
  double few_seconds_ = 0;     // of a step with kLeast prompt tokens at most
  double token_seconds_ = -1;  // that a further prompt token adds, on average; below 0: not known
  int64_t last_tokens_ = 0;    // prompt tokens of the last step with more than kLeast
  int64_t since_decodes_ = 0, since_few_ = 0;  // steps
  double chunk_seconds_ = 0;  // that a token of a step with much room taken adds; 0: not known
  double apart_ = 0;          // seconds between steps that take the whole room; 0: not known
  double owed_ = 0;           // times that to go before the next
  bool chunk_ = false;        // the limit is the whole room
};

}  // namespace seacliff
