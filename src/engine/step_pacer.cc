// The pace of prompts beside decodes; see step_pacer.h.
#include "engine/step_pacer.h"

#include <algorithm>

namespace seacliff {
namespace {

constexpr double kNewest = 0.25;  // the newest step's part of an average
constexpr double kMargin = 0.9;   // steps differ

}  // namespace

void StepPacer::Record(int64_t decodes, int64_t prompt_tokens, double seconds) {
  if (decodes == 0) return;
  const auto average = [](double old, bool known, double value) {
    return known ? old + kNewest * (value - old) : value;
  };
  if (prompt_tokens == 0) {
    decode_seconds_ = average(decode_seconds_, decode_seconds_ > 0, seconds);
    since_probe_ = 0;
    return;
  }
  ++since_probe_;
  last_tokens_ = prompt_tokens;
  const double added =
      std::max(0.0, seconds - decode_seconds_) / static_cast<double>(prompt_tokens);
  token_seconds_ = average(token_seconds_, token_seconds_ >= 0, added);
}

int64_t StepPacer::prompt_limit() const {
  if (decode_seconds_ == 0 || since_probe_ >= kProbeEvery) return 0;
  if (token_seconds_ < 0) return std::min(kFirst, max_tokens_);
  // What few tokens cost says little of many, so it grows by doubling.
  int64_t limit = 2 * std::max(last_tokens_, kLeast);
  const double room = kMargin * (kStretch - 1) * decode_seconds_;
  if (room < token_seconds_ * static_cast<double>(limit)) {
    limit = static_cast<int64_t>(room / token_seconds_);
  }
  return std::min(std::max(limit, kLeast), max_tokens_);
}

}  // namespace seacliff
