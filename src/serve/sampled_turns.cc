// The store of sampled turns; see sampled_turns.h.
#include "serve/sampled_turns.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <utility>

namespace seacliff::serve {
namespace {

// Of a turn beside its ids, about: the list's node and those of three maps.
constexpr size_t kTurnBytes = 256;

void CountDown(std::unordered_map<uint64_t, int32_t>& counts, uint64_t hash) {
  const auto found = counts.find(hash);
  if (--found->second == 0) counts.erase(found);
}

}  // namespace

uint64_t TurnHash(uint64_t scope, std::string_view text) {
  return XXH3_64bits_withSeed(text.data(), text.size(), scope);
}

size_t SampledTurns::Cost(const Turn& turn) {
  return kTurnBytes + turn.ids.size() * sizeof(turn.ids[0]) + turn.calls.size();
}

void SampledTurns::Remove(Order::iterator turn) {
  bytes_ -= Cost(*turn);
  CountDown(befores_, turn->key.before);
  CountDown(texts_, turn->key.text);
  turns_.erase(turn->key);
  order_.erase(turn);
}

void SampledTurns::Add(const Key& key, std::span<const int32_t> ids, std::string_view calls) {
  Turn turn{key, {ids.begin(), ids.end()}, std::string(calls)};
  const std::lock_guard lock(mutex_);
  // Sampled again with the same text: the newer ids are the ones that the cache has for sure.
  if (const auto known = turns_.find(key); known != turns_.end()) Remove(known->second);
  const size_t cost = Cost(turn);
  if (cost > most_) return;
  while (bytes_ + cost > most_) Remove(order_.begin());
  bytes_ += cost;
  ++befores_[key.before];
  ++texts_[key.text];
  turns_[key] = order_.insert(order_.end(), std::move(turn));
}

SampledTurns::Found SampledTurns::Find(const Key& key) {
  const std::lock_guard lock(mutex_);
  const auto found = turns_.find(key);
  if (found != turns_.end()) {
    order_.splice(order_.end(), order_, found->second);
    return {found->second->ids, found->second->calls, Miss::kUnknown};
  }
  if (befores_.contains(key.before)) return {std::nullopt, "", Miss::kEdited};
  if (texts_.contains(key.text)) return {std::nullopt, "", Miss::kTemplate};
  return {};
}

size_t SampledTurns::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

size_t SampledTurns::size() const {
  const std::lock_guard lock(mutex_);
  return order_.size();
}

}  // namespace seacliff::serve
