// The cache as integers; see plan.h.
#include "cache/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace seacliff {

CachePlan::CachePlan(const CacheSize& size, int64_t window, int64_t step_tokens)
    : window_tokens_(window),
      window_need_(static_cast<int32_t>(WindowNeed(window))),
      window_shared_(static_cast<int32_t>(PagesOf(step_tokens))),
      snapshot_window_(static_cast<int32_t>(SnapshotWindow(window))),
      window_(size.window_pages),
      compressed_(size.compressed_pages),
      slots_(size.slots),
      index_(size.compressed_pages),
      snapshot_pool_(size.snapshots),
      snapshot_order_(size.snapshots),
      snapshots_(static_cast<size_t>(size.snapshots)),
      snapshot_pages_(snapshots_.size() * static_cast<size_t>(snapshot_window_), kNoPage) {
  SC_CHECK(window >= 1 && step_tokens >= 1);
}

bool CachePlan::FitsAlone(int64_t tokens) const {
  const int64_t pages = PagesOf(tokens);
  return slots_.pages() > 0 && pages <= compressed_.pages() &&
         std::min<int64_t>(pages, window_need_) + window_shared_ <= window_.pages();
}

bool CachePlan::HasSlot(int64_t tokens) const {
  const int64_t need = std::min<int64_t>(PagesOf(tokens), window_need_);
  return slots_.free() > 0 && promised_ + need + window_shared_ <= window_.pages();
}

PrefixMatch CachePlan::Match(const TokenChain& chain) const {
  PrefixMatch match;
  const auto complete = static_cast<int32_t>(chain.hashes.size());
  // At least one token must be computed, for its logits.
  const auto most = static_cast<int32_t>((chain.ids.size() - 1) / kPageTokens);
  int32_t page = kNoPage;
  while (match.known < complete) {
    page = index_.Find(chain, match.known, page);
    if (page == kNoPage) break;
    ++match.known;
    if (match.known <= most && index_.snapshot(page) >= 0) {
      match.page = page;
      match.blocks = match.known;
    }
  }
  const auto missed = [&](CacheMiss reason) -> int32_t& {
    return match.missed[static_cast<size_t>(reason)];
  };
  int32_t at = std::min(match.known, most);
  missed(CacheMiss::kSnapshot) = at - match.blocks;
  const bool other_salt = at == 0 && most > 0 && index_.WasSeenUnsalted(chain);
  // Where a block was evicted, those before it were there too, remembered or not.
  int32_t end = most;
  while (end > at && !index_.WasEvicted(chain.hashes[static_cast<size_t>(end) - 1])) --end;
  missed(CacheMiss::kEvicted) = end - at;
  at = end;
  missed(other_salt && at == 0 ? CacheMiss::kSalt : CacheMiss::kCold) = most - at;
  return match;
}

int32_t CachePlan::AvailableIn(const PrefixMatch& match) const {
  int32_t count = 0;
  // Whoever holds a block holds those before it.
  for (int32_t page = match.page; page != kNoPage && index_.idle().has(page);
       page = index_.parent(page)) {
    ++count;
  }
  return count;
}

SequencePages CachePlan::Open(const PrefixMatch& match, int64_t tokens,
                              std::optional<RowCopy>& copy) {
  SC_CHECK(HasSlot(tokens));
  SequencePages pages;
  pages.slot = slots_.Take();
  pages.serial = ++last_serial_;
  pages.window_need = static_cast<int32_t>(std::min<int64_t>(PagesOf(tokens), window_need_));
  promised_ += pages.window_need;
  pages.window.reserve(static_cast<size_t>(PagesOf(tokens)));
  pages.compressed.reserve(static_cast<size_t>(PagesOf(tokens)));
  copy.reset();
  if (match.page == kNoPage) return pages;

  pages.blocks = match.blocks;
  pages.compressed.resize(static_cast<size_t>(match.blocks));
  int32_t page = match.page;
  for (int32_t block = match.blocks - 1; block >= 0; --block) {
    Hold(page);
    pages.compressed[static_cast<size_t>(block)] = page;
    page = index_.parent(page);
  }
  const int32_t snapshot = index_.snapshot(match.page);
  SC_CHECK(page == kNoPage && snapshot >= 0);
  pages.first_window = FirstSeen(match.blocks * kPageTokens);
  pages.window.resize(static_cast<size_t>(match.blocks), kNoPage);
  for (int32_t block = pages.first_window; block < match.blocks; ++block) {
    const int32_t held = WindowOf(snapshot)[static_cast<size_t>(block - pages.first_window)];
    window_.Share(held);
    pages.window[static_cast<size_t>(block)] = held;
  }
  snapshots_[static_cast<size_t>(snapshot)].owner = 0;  // wanted twice: kept
  snapshot_order_.Remove(snapshot);
  snapshot_order_.Append(snapshot);
  copy = RowCopy{pages.slot, snapshot, match.blocks * kPageTokens, true};
  return pages;
}

bool CachePlan::Extend(int64_t tokens, SequencePages& pages) {
  const auto rows = static_cast<size_t>(PagesOf(tokens));
  if (rows <= pages.compressed.size()) return true;
  if (static_cast<int64_t>(rows - pages.compressed.size()) > available()) return false;
  while (pages.compressed.size() < rows) {
    pages.compressed.push_back(TakeCompressed());
    pages.window.push_back(TakeWindow());
  }
  return true;
}

void CachePlan::Trim(int64_t computed, SequencePages& pages) {
  const int32_t first_page = FirstSeen(computed);
  SC_CHECK(static_cast<size_t>(first_page) <= pages.window.size());
  for (; pages.first_window < first_page; ++pages.first_window) {
    int32_t& page = pages.window[static_cast<size_t>(pages.first_window)];
    window_.Release(page);
    page = kNoPage;
  }
}

void CachePlan::Commit(const TokenChain& chain, int64_t computed, SequencePages& pages) {
  if (snapshot_pool_.pages() == 0) return;  // nothing could start behind a block
  for (; (pages.blocks + 1) * kPageTokens <= computed; ++pages.blocks) {
    int32_t& own = pages.compressed[static_cast<size_t>(pages.blocks)];
    const int32_t parent =
        pages.blocks == 0 ? kNoPage : pages.compressed[static_cast<size_t>(pages.blocks) - 1];
    const int32_t known = index_.Find(chain, pages.blocks, parent);
    if (known == kNoPage) {
      index_.Add(chain, pages.blocks, parent, own);
      compressed_.Share(own);
    } else {
      Hold(known);
      compressed_.Release(own);
      own = known;
    }
  }
}

std::optional<RowCopy> CachePlan::TakeSnapshot(int64_t position, bool keep, SequencePages& pages) {
  if (snapshot_pool_.pages() == 0) return std::nullopt;
  const int64_t blocks = position / kPageTokens;
  SC_CHECK(position % kPageTokens == 0 && blocks > 0 && blocks <= pages.blocks);
  const int32_t page = pages.compressed[static_cast<size_t>(blocks) - 1];
  if (const int32_t there = index_.snapshot(page); there >= 0) {
    Snapshot& snapshot = snapshots_[static_cast<size_t>(there)];
    if (keep || snapshot.owner != pages.serial) snapshot.owner = 0;
    if (there != pages.rolling) DropRolling(pages);
    snapshot_order_.Remove(there);
    snapshot_order_.Append(there);
    return std::nullopt;
  }
  DropRolling(pages);
  if (snapshot_pool_.free() == 0) {
    Drop(snapshot_order_.first());
    ++dropped_snapshots_;
  }
  const int32_t snapshot = snapshot_pool_.Take();
  snapshot_order_.Append(snapshot);
  snapshots_[static_cast<size_t>(snapshot)] = {page, keep ? 0 : pages.serial};
  index_.set_snapshot(page, snapshot);
  if (!keep) pages.rolling = snapshot;
  const int32_t first = FirstSeen(position);
  SC_CHECK(first >= pages.first_window);
  for (int32_t block = first; block < blocks; ++block) {
    const int32_t held = pages.window[static_cast<size_t>(block)];
    window_.Share(held);
    WindowOf(snapshot)[static_cast<size_t>(block - first)] = held;
  }
  return RowCopy{pages.slot, snapshot, position};
}

void CachePlan::Close(SequencePages& pages, bool trusted) {
  for (const int32_t page : pages.window) {
    if (page != kNoPage) window_.Release(page);
  }
  // Last block first, as the order of use wants it.
  for (size_t block = pages.compressed.size(); block-- > 0;) {
    const int32_t page = pages.compressed[block];
    compressed_.Release(page);
    if (static_cast<int64_t>(block) >= pages.blocks || compressed_.holders(page) > 1) continue;
    if (trusted || index_.children(page) > 0) {
      index_.idle().Append(page);
    } else {
      Forget(page, /*evicted=*/false);
    }
  }
  slots_.Release(pages.slot);
  promised_ -= pages.window_need;
  pages = SequencePages();
}

// The first page with a key that the query at `position` sees.
int32_t CachePlan::FirstSeen(int64_t position) const {
  return static_cast<int32_t>(std::max<int64_t>(0, position - window_tokens_ + 1) / kPageTokens);
}

std::span<int32_t> CachePlan::WindowOf(int32_t snapshot) {
  return std::span(snapshot_pages_)
      .subspan(static_cast<size_t>(snapshot) * static_cast<size_t>(snapshot_window_),
               static_cast<size_t>(snapshot_window_));
}
std::span<const int32_t> CachePlan::WindowOf(int32_t snapshot) const {
  return const_cast<CachePlan*>(this)->WindowOf(snapshot);
}

// One more holder of an indexed block.
void CachePlan::Hold(int32_t page) {
  compressed_.Share(page);
  if (index_.idle().has(page)) index_.idle().Remove(page);
}

int32_t CachePlan::TakeWindow() {
  // What is not promised to live sequences is held by snapshots alone.
  while (window_.free() == 0) {
    Drop(snapshot_order_.first());
    ++dropped_snapshots_;
  }
  return window_.Take();
}

int32_t CachePlan::TakeCompressed() {
  if (compressed_.free() == 0) {
    Forget(index_.idle().first(), /*evicted=*/true);
    ++evicted_blocks_;
  }
  return compressed_.Take();
}

// Takes a block that no sequence holds out of the index.
void CachePlan::Forget(int32_t page, bool evicted) {
  if (index_.snapshot(page) >= 0) Drop(index_.snapshot(page));
  index_.Remove(page, evicted);
  compressed_.Release(page);
}

void CachePlan::Drop(int32_t snapshot) {
  Snapshot& dropped = snapshots_[static_cast<size_t>(snapshot)];
  for (int32_t& page : WindowOf(snapshot)) {
    if (page != kNoPage) window_.Release(page);
    page = kNoPage;
  }
  index_.set_snapshot(dropped.page, -1);
  dropped = Snapshot();
  snapshot_order_.Remove(snapshot);
  snapshot_pool_.Release(snapshot);
}

void CachePlan::DropRolling(SequencePages& pages) {
  // It may have been dropped and its number used again, or be kept by now.
  if (pages.rolling >= 0 && snapshots_[static_cast<size_t>(pages.rolling)].owner == pages.serial) {
    Drop(pages.rolling);
  }
  pages.rolling = -1;
}

Status CachePlan::CheckBooks(std::span<const SequencePages* const> open) const {
  std::vector<int32_t> window(static_cast<size_t>(window_.pages()));
  std::vector<int32_t> compressed(static_cast<size_t>(compressed_.pages()));
  std::vector<int32_t> live = compressed, below = compressed;
  std::vector<int32_t> slots(static_cast<size_t>(slots_.pages()));
  std::vector<int32_t> snapshots(snapshots_.size());
  const auto count = [](std::vector<int32_t>& held, int32_t page) {
    ++held[static_cast<size_t>(page)];
  };
  int32_t promised = 0;
  for (const SequencePages* pages : open) {
    for (const int32_t page : pages->window) {
      if (page != kNoPage) count(window, page);
    }
    for (const int32_t page : pages->compressed) {
      count(compressed, page);
      count(live, page);
    }
    count(slots, pages->slot);
    promised += pages->window_need;
  }
  int32_t blocks = 0, cached = 0;
  for (int32_t page = 0; page < compressed_.pages(); ++page) {
    if (!index_.has(page)) continue;
    ++blocks;
    count(compressed, page);
    if (index_.parent(page) != kNoPage) count(below, index_.parent(page));
    const bool idle = live[static_cast<size_t>(page)] == 0;
    cached += idle ? 1 : 0;
    if (idle != index_.idle().has(page)) {
      return Internal(fmt::format("block {} is {}", page, idle ? "not idle" : "idle but held"));
    }
    if (const int32_t snapshot = index_.snapshot(page); snapshot >= 0) {
      count(snapshots, snapshot);
      if (snapshots_[static_cast<size_t>(snapshot)].page != page ||
          !snapshot_order_.has(snapshot)) {
        return Internal(fmt::format("snapshot {} does not stand behind block {}", snapshot, page));
      }
      for (const int32_t held : WindowOf(snapshot)) {
        if (held != kNoPage) count(window, held);
      }
    }
  }
  for (int32_t page = 0; page < compressed_.pages(); ++page) {
    if (index_.has(page) && index_.children(page) != below[static_cast<size_t>(page)]) {
      return Internal(fmt::format("block {} miscounts the blocks below it", page));
    }
  }
  // Whatever comes first in the order of use can be removed.
  for (int32_t page = index_.idle().first(); page != index_.idle().end();
       page = index_.idle().next(page)) {
    if (below[static_cast<size_t>(page)] != 0) {
      return Internal(fmt::format("block {} comes before one below it", page));
    }
    if (index_.parent(page) != kNoPage) --below[static_cast<size_t>(index_.parent(page))];
  }
  const auto check = [](const char* what, const std::vector<int32_t>& held,
                        const PagePool& pool) -> Status {
    for (int32_t page = 0; page < pool.pages(); ++page) {
      const int32_t holders = held[static_cast<size_t>(page)];
      if (holders != pool.holders(page)) {
        return Internal(fmt::format("{} {} has {} holders and counts {}", what, page, holders,
                                    pool.holders(page)));
      }
    }
    const auto taken = pool.pages() - std::count(held.begin(), held.end(), 0);
    if (taken == pool.used()) return OkStatus();
    return Internal(fmt::format("{}: {} of {} are taken and {} are free", what, taken, pool.pages(),
                                pool.free()));
  };
  SC_RETURN_IF_ERROR(check("window page", window, window_));
  SC_RETURN_IF_ERROR(check("compressed page", compressed, compressed_));
  SC_RETURN_IF_ERROR(check("slot", slots, slots_));
  SC_RETURN_IF_ERROR(check("snapshot", snapshots, snapshot_pool_));
  if (promised != promised_ || blocks != index_.blocks() || cached != index_.idle().size() ||
      snapshot_order_.size() != snapshot_pool_.used()) {
    return Internal("the cache's sums do not add up");
  }
  return OkStatus();
}

}  // namespace seacliff
