// Who runs: letting sequences in, and preempting them when pages run out; see scheduler.h.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "sched/scheduler.h"

namespace seacliff {
namespace {

// Waiting sequences that are looked at for one step.
constexpr int kLookAhead = 64;
constexpr size_t kMaxBranches = 8;

// The blocks that two sequences have in common; the hashes are chained.
int64_t CommonBlocks(const Sequence& a, const Sequence& b) {
  size_t low = 0, high = std::min(a.hashes.size(), b.hashes.size());
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (a.hashes[middle] != b.hashes[middle]) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return static_cast<int64_t>(low);
}

// The most blocks that a match of the sequence can have: a token must be left to compute.
int64_t MostBlocks(const Sequence& sequence) {
  return (static_cast<int64_t>(sequence.tokens.size()) - 1) / kPageTokens;
}

void AddBranch(Sequence& sequence, int64_t position) {
  std::vector<int64_t>& branches = sequence.branches;
  if (branches.size() == kMaxBranches ||
      std::find(branches.begin(), branches.end(), position) != branches.end()) {
    return;
  }
  branches.push_back(position);
}

}  // namespace

void Scheduler::Admit() {
  size_t next = 0;
  for (int looked = 0; looked < kLookAhead && next < waiting_.size(); ++looked) {
    if (running() >= options_.max_num_seqs) return;
    const Sequence& sequence = *waiting_[next];
    if (WaitsForRunning(sequence)) {
      ++next;
      continue;
    }
    const PrefixMatch match = cache_.Match(sequence.reusable());
    if (!Fits(sequence, match)) return;
    LetIn(next, match);
  }
}

bool Scheduler::WaitsForRunning(const Sequence& sequence) {
  if (cache_.snapshots().pages() == 0 || sequence.scoring()) return false;
  for (const Owned& other : running_) {
    if (other->scoring()) continue;  // it takes long
    const int64_t common =
        std::min(CommonBlocks(sequence, *other), MostBlocks(sequence)) * kPageTokens;
    if (common <= other->computed) continue;
    // It stops there, for the snapshot, and is as urgent as a prompt that ends there.
    AddBranch(*other, common);
    other->awaited = other->awaited == 0 ? common : std::min(other->awaited, common);
    return true;
  }
  return false;
}

bool Scheduler::Fits(const Sequence& sequence, const PrefixMatch& match) const {
  if (!cache_.HasSlot(sequence.longest())) return false;
  int64_t need = PagesOf(static_cast<int64_t>(sequence.tokens.size())) - match.blocks;
  for (const Owned& other : running_) {
    const int64_t pages = PagesOf(static_cast<int64_t>(other->tokens.size()));
    need += 1 + std::max<int64_t>(0, pages - static_cast<int64_t>(other->pages.compressed.size()));
  }
  return need <= available() - cache_.AvailableIn(match);
}

void Scheduler::LetIn(size_t waiting, const PrefixMatch& match) {
  const auto place = waiting_.begin() + static_cast<int64_t>(waiting);
  Owned owned = std::move(*place);
  waiting_.erase(place);
  Sequence& sequence = *owned;
  sequence.tokens.reserve(static_cast<size_t>(sequence.longest()));
  sequence.hashes.reserve(static_cast<size_t>(sequence.longest() / kPageTokens));
  sequence.branches.reserve(kMaxBranches);

  std::optional<RowCopy> copy;
  sequence.pages = cache_.Open(match, sequence.longest(), copy);
  if (copy) plan_.copies.push_back(*copy);
  sequence.computed = sequence.kept = match.blocks * kPageTokens;
  const bool may_wait = sequence.background || sequence.scores;
  sequence.paced_from = may_wait ? 0 : sequence.computed + options_.unpaced_tokens;
  if (match.known > match.blocks) AddBranch(sequence, match.known * kPageTokens);
  // One that is preempted before it begins may find more or less the next time.
  if (!sequence.begun) {
    sequence.found = match;
    sequence.cached = sequence.furthest = sequence.computed;
  }
  sequence.furthest = std::max(sequence.furthest, sequence.computed);
  const auto order = [](const Owned& a, const Owned& b) { return Before(*a, *b); };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), owned, order),
                  std::move(owned));
}

void Scheduler::CountMatch(Sequence& sequence) {
  if (sequence.background || sequence.scores) return;
  PrefixMatch& match = sequence.found;
  CountLostPrefix(sequence, match);
  counts_.queried_tokens += static_cast<uint64_t>(sequence.prompt_len);
  counts_.hit_tokens += static_cast<uint64_t>(sequence.cached);
  for (size_t i = 0; i < match.missed.size(); ++i) {
    counts_.missed_tokens[i] += static_cast<uint64_t>(match.missed[i] * kPageTokens);
  }
}

void Scheduler::CountLostPrefix(const Sequence& sequence, PrefixMatch& match) {
  if (sequence.continues == 0) return;
  const Turn& turn = TurnOf(sequence.continues);
  if (turn.number != sequence.continues) return;
  const auto expected = static_cast<int32_t>(std::min<int64_t>(turn.blocks, MostBlocks(sequence)));
  if (expected <= match.blocks) return;
  const auto missed = [&](CacheMiss reason) -> int32_t& {
    return match.missed[static_cast<size_t>(reason)];
  };
  // Blocks of the turn before that are neither known nor evicted: this turn has others there.
  const int32_t other =
      std::clamp(expected - match.known - missed(CacheMiss::kEvicted), 0, missed(CacheMiss::kCold));
  missed(CacheMiss::kCold) -= other;
  missed(CacheMiss::kTemplate) += other;
  CacheMiss reason = CacheMiss::kSnapshot;
  for (const CacheMiss other_reason :
       {CacheMiss::kEvicted, CacheMiss::kSalt, CacheMiss::kTemplate}) {
    if (missed(other_reason) > missed(reason)) reason = other_reason;
  }
  ++counts_.lost_prefixes;
  plan_.lost.push_back({sequence.id, expected * kPageTokens, match.blocks * kPageTokens, reason});
}

// Preempts the last running sequence in the order that is not planned, if it comes after
// `sequence`.
bool Scheduler::PreemptFor(const Sequence& sequence) {
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->planned) continue;
    if (!Before(sequence, *running_[i])) return false;
    Preempt(i);
    return true;
  }
  return false;
}

void Scheduler::Preempt(size_t running) {
  Owned owned = std::move(running_[running]);
  running_.erase(running_.begin() + static_cast<int64_t>(running));
  SC_CHECK(!owned->planned);
  cache_.Close(owned->pages);
  owned->computed = 0;
  owned->starved = false;
  owned->branches.clear();
  ++counts_.preemptions;
  const auto order = [](const Owned& a, const Owned& b) { return Before(*a, *b); };
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), owned, order),
                  std::move(owned));
}

// A prompt that got no page although sequences behind it ran takes one of theirs.
void Scheduler::RelieveStarved() {
  for (const Owned& sequence : running_) {
    if (!sequence->starved) continue;
    sequence->starved = false;
    PreemptFor(*sequence);
    return;
  }
}

}  // namespace seacliff
