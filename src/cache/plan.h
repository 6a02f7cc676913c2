// The cache as integers: who holds which window page, compressed page, slot and snapshot, and which
// prefixes can be used again. No memory here (cache/store has it); ids index into every layer's
// memory of their kind.
//
// A page covers 128 tokens. A sequence holds its compressed pages until it ends; a window page goes
// as soon as no query can see it: the query at position p sees positions p - window + 1 .. p
// (spec/model.md 2.5). A slot holds the compressor rows of one live sequence.
//
// Complete pages whose step is committed enter the prefix index, which holds them too and keeps
// them when the sequence is gone. A sequence can start at position P, a multiple of 128, of a known
// prefix if there is a snapshot at P: the window pages that a query at P sees, and the ratio-4 rows
// of P - 4 .. P - 1. At P a block of 128 ends, and blocks of ratio 128 do not overlap, so their
// rows are not needed (kernels/compress/op.h). A slot has the rows of the newest boundary of its
// sequence, and of the one before until 4 tokens short of the next (tensor/state_rows.h), so a
// sequence need not stop at P. What starts at a snapshot computes the same as what starts at 0.
//
// Window pages never run out: a sequence is promised its need when it is let in. Between steps it
// holds the pages of window - 1 tokens; a step that brings it c tokens adds fewer than c / 128 + 1.
// So 3 pages a sequence, and step_tokens / 128 more that all share, cover any way of dividing a
// step. Snapshots have what is beyond that, and give it up when it is needed. Compressed pages are
// taken as sequences grow, and blocks that no sequence holds give theirs up, least recent first.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/lru_list.h"
#include "cache/page_pool.h"
#include "cache/prefix_index.h"
#include "cache/size.h"
#include "seacliff/engine.h"

namespace seacliff {

// Ratio-4 rows to copy between the slot of a live sequence and a snapshot at `position`, in order.
struct RowCopy {
  int32_t slot = 0, snapshot = 0;
  int64_t position = 0;
  bool to_slot = false;  // the sequence starts from the snapshot
};

// What the index has of a prompt.
struct PrefixMatch {
  int32_t page = kNoPage;  // the last block's that can be started behind
  int32_t blocks = 0;      // up to there
  int32_t known = 0;       // blocks that are in the index, with or without a snapshot behind them
  // Blocks that must be computed although a match could be as long as the prompt less a token, by
  // reason (kTemplate is the scheduler's to tell).
  std::array<int32_t, kCacheMisses> missed = {};
};

// A live sequence's part of the cache. Row entry p is the page of tokens 128 p .. 128 p + 127, or
// kNoPage where the page was given back.
struct SequencePages {
  int32_t slot = -1;
  int32_t window_need = 0;  // what was promised to it
  std::vector<int32_t> window, compressed;
  int32_t first_window = 0;  // rows before it are kNoPage
  int32_t blocks = 0;        // of `compressed`, those that are in the index
  uint64_t serial = 0;       // tells its snapshots from those of others
  int32_t rolling = -1;      // its newest snapshot, while it alone wants it
};

class CachePlan {
 public:
  // `step_tokens`: the most tokens of one step, over all sequences.
  CachePlan(const CacheSize& size, int64_t window, int64_t step_tokens);

  // Whether an empty cache holds a sequence of `tokens` tokens.
  bool FitsAlone(int64_t tokens) const;
  // Whether there is a slot, and window pages for one more sequence of up to `tokens` tokens.
  bool HasSlot(int64_t tokens) const;
  // Compressed pages that can be taken: free ones and those of blocks that no sequence holds.
  int32_t available() const { return compressed_.free() + index_.idle().size(); }

  PrefixMatch Match(const TokenChain& chain) const;
  // Those of `available` that opening this match would hold.
  int32_t AvailableIn(const PrefixMatch& match) const;
  // Opens a sequence of at most `tokens` tokens behind the match; HasSlot must hold. The copy, if
  // any, must be made before the sequence's first step.
  SequencePages Open(const PrefixMatch& match, int64_t tokens, std::optional<RowCopy>& copy);
  // Pages for all positions below `tokens`, evicting what it must; false, and nothing is changed,
  // if there are not that many.
  bool Extend(int64_t tokens, SequencePages& pages);
  // Gives back the window pages that no query at position `computed` or later sees.
  void Trim(int64_t computed, SequencePages& pages);
  // Enters the complete blocks below `computed` into the index. Where one is known already the
  // sequence goes on with the known page.
  void Commit(const TokenChain& chain, int64_t computed, SequencePages& pages);
  // Takes a snapshot at one of the last two multiples of 128 that the last step reached, all of
  // whose blocks are committed. It replaces the sequence's last one that was not to be kept. The
  // copy, if any, must be made before the next step.
  std::optional<RowCopy> TakeSnapshot(int64_t position, bool keep, SequencePages& pages);
  // Gives everything back; the index keeps its blocks. With `trusted` false those that nobody else
  // has are forgotten.
  void Close(SequencePages& pages, bool trusted = true);

  const PagePool& window_pool() const { return window_; }
  const PagePool& compressed_pool() const { return compressed_; }
  const PagePool& slots() const { return slots_; }
  const PagePool& snapshots() const { return snapshot_pool_; }
  const PrefixIndex& index() const { return index_; }
  uint64_t evicted_blocks() const { return evicted_blocks_; }
  uint64_t dropped_snapshots() const { return dropped_snapshots_; }  // for want of room

  // The books: every page, slot and snapshot is free or held by exactly those who say so. Visits
  // every page.
  Status CheckBooks(std::span<const SequencePages* const> open) const;

 private:
  struct Snapshot {
    int32_t page = kNoPage;  // of the block that it stands behind
    uint64_t owner = 0;      // the serial of the sequence that alone wants it; 0: kept
  };

  int32_t FirstSeen(int64_t position) const;
  std::span<int32_t> WindowOf(int32_t snapshot);
  std::span<const int32_t> WindowOf(int32_t snapshot) const;
  void Hold(int32_t page);
  int32_t TakeWindow();
  int32_t TakeCompressed();
  void Forget(int32_t page, bool evicted);
  void Drop(int32_t snapshot);
  void DropRolling(SequencePages& pages);

  int64_t window_tokens_;
  int32_t window_need_;      // pages that a long sequence is promised
  int32_t window_shared_;    // pages that the tokens of a step share
  int32_t snapshot_window_;  // window pages of a snapshot
  int32_t promised_ = 0;     // window pages, over all open sequences
  PagePool window_, compressed_, slots_;
  PrefixIndex index_;
  PagePool snapshot_pool_;
  LruList snapshot_order_;
  std::vector<Snapshot> snapshots_;
  std::vector<int32_t> snapshot_pages_;  // [snapshots, snapshot_window_]; kNoPage: none
  uint64_t last_serial_ = 0;
  uint64_t evicted_blocks_ = 0, dropped_snapshots_ = 0;
};

}  // namespace seacliff
