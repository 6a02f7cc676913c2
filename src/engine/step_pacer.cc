// The pace of prompts beside decodes; see step_pacer.h.
#include "engine/step_pacer.h"

#include <algorithm>

namespace seacliff {
namespace {

constexpr double kNewest = 0.25;  // the newest step's part of an average
constexpr double kMargin = 0.9;   // steps differ
constexpr double kCheap = 3;      // so much less must tokens of chunks cost
constexpr double kSlower = 1.5;   // and so much slower may prompts be
constexpr auto kFew = static_cast<double>(StepPacer::kLeast);

}  // namespace

void StepPacer::Record(int64_t decodes, int64_t prompt_tokens, double seconds, bool paced) {
  const auto average = [](double old, bool known, double value) {
    return known ? old + kNewest * (value - old) : value;
  };
  if (prompt_tokens > 0 && (!paced || chunk_)) {
    if (decodes > 0) owed_ = std::min(owed_ + 1, kMostOwed);
    if (2 * prompt_tokens < max_tokens_) return;  // cut short by the prompt's end or a snapshot
    const double added = std::max(0.0, seconds - (decodes > 0 ? decode_seconds_ : 0));
    chunk_seconds_ =
        average(chunk_seconds_, chunk_seconds_ > 0, added / static_cast<double>(prompt_tokens));
    return;
  }
  if (decodes == 0) return;
  if (apart_ > 0) owed_ = std::max(0.0, owed_ - seconds / apart_);
  if (prompt_tokens == 0) {
    decode_seconds_ = average(decode_seconds_, decode_seconds_ > 0, seconds);
    since_decodes_ = 0;
    return;
  }
  ++since_decodes_;
  if (prompt_tokens <= kLeast) {
    few_seconds_ = average(few_seconds_, few_seconds_ > 0, seconds);
    since_few_ = 0;
    // All that they add to decodes is the most that they can cost themselves.
    const double most = std::max(0.0, few_seconds_ - decode_seconds_) / kFew;
    token_seconds_ = std::min(token_seconds_, most);
    return;
  }
  ++since_few_;
  last_tokens_ = prompt_tokens;
  if (prompt_tokens < 2 * kLeast) return;  // the difference would be noise
  const double added =
      std::max(0.0, seconds - few_seconds_) / static_cast<double>(prompt_tokens - kLeast);
  token_seconds_ = average(token_seconds_, token_seconds_ >= 0, added);
}

int64_t StepPacer::prompt_limit(int64_t prompts, int64_t decodes) {
  chunk_ = false;
  if (decode_seconds_ == 0 || since_decodes_ >= kProbeEvery) return 0;
  if (few_seconds_ == 0 || since_few_ >= kProbeEvery) return std::min(kLeast, max_tokens_);
  // What few tokens cost says little of many, so it grows by doubling.
  int64_t limit = 2 * std::max(last_tokens_, kLeast);
  if (token_seconds_ >= 0) {
    const double least = std::max(decode_seconds_, few_seconds_ - kFew * token_seconds_);
    const double shares = static_cast<double>(prompts) / static_cast<double>(decodes);
    const bool possible = few_seconds_ <= kStretch * decode_seconds_;
    const double allowed = std::max(kStretch, 1 + shares) * (possible ? decode_seconds_ : least);
    const double room = kMargin * std::max(0.0, allowed - least);
    if (room < token_seconds_ * static_cast<double>(limit)) {
      limit = static_cast<int64_t>(room / token_seconds_);
    }
    // In chunks now and then?
    const double tokens = static_cast<double>(std::max(limit, kLeast));
    const double step = least + token_seconds_ * tokens;
    const double chunk = chunk_seconds_ * static_cast<double>(max_tokens_);
    apart_ = std::min(static_cast<double>(kChunkEvery) * decode_seconds_, chunk / shares);
    const bool cheap = kCheap * chunk_seconds_ * tokens < step - decode_seconds_;
    const double speed = static_cast<double>(max_tokens_) / (chunk + apart_);
    if (chunk_seconds_ > 0 && cheap && kSlower * speed > tokens / step) {
      chunk_ = owed_ == 0;
      return chunk_ ? max_tokens_ : 0;
    }
  }
  return std::min(std::max(limit, kLeast), max_tokens_);
}

}  // namespace seacliff
