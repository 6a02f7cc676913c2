// Which 128-token blocks are in the cache: a tree, in which a block stands below the block before
// it, so that a path from the top is a prefix of some earlier sequence. Integers only; the pages
// are the plan's (plan.h).
//
// A block is known by the number of its compressed page. It is looked up by a hash chained over
// the blocks before it, with the salt before the first; a hit is checked against parent, ids and
// salt, so a collision gives no wrong one. Nothing is allocated after the start but for salts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/lru_list.h"

namespace seacliff {

inline constexpr int32_t kNoPage = -1;

// A sequence's tokens as the index sees them.
struct TokenChain {
  std::string_view salt;
  std::span<const int32_t> ids;
  std::span<const uint64_t> hashes;  // of its complete blocks, or of the first of them
};

// Adds the hashes of the complete blocks of `ids` that have none yet: XXH3 over the 128 ids, seeded
// with the hash before; before the first block stands that of the salt.
void ExtendHashes(std::string_view salt, std::span<const int32_t> ids,
                  std::vector<uint64_t>& hashes);

class PrefixIndex {
 public:
  explicit PrefixIndex(int32_t pages);

  // The page of block `block` of the chain below the page `parent` (kNoPage for block 0), or
  // kNoPage.
  int32_t Find(const TokenChain& chain, int64_t block, int32_t parent) const;
  // Enters that block, which must be new.
  void Add(const TokenChain& chain, int64_t block, int32_t parent, int32_t page);
  // Forgets a block that has no others below it; its hash is remembered if it was `evicted`.
  void Remove(int32_t page, bool evicted);

  bool has(int32_t page) const { return At(page).in; }
  int32_t parent(int32_t page) const { return At(page).parent; }
  int32_t children(int32_t page) const { return At(page).children; }
  int32_t blocks() const { return blocks_; }
  // The block's snapshot (plan.h), -1: none.
  int32_t snapshot(int32_t page) const { return At(page).snapshot; }
  void set_snapshot(int32_t page, int32_t snapshot) {
    nodes_[static_cast<size_t>(page)].snapshot = snapshot;
  }

  // Blocks that nobody but the index holds, in order of use. Who stops using a chain appends its
  // blocks last block first; then every block stands behind all that are below it, and the first is
  // always one that can be removed.
  LruList& idle() { return idle_; }
  const LruList& idle() const { return idle_; }

  // Whether a block of this hash was evicted lately. Of a bounded number; an older one may be
  // forgotten.
  bool WasEvicted(uint64_t hash) const { return evicted_[hash & (evicted_.size() - 1)] == hash; }
  // Whether the chain's first block was seen lately under whatever salt.
  bool WasSeenUnsalted(const TokenChain& chain) const;

 private:
  struct Node {
    uint64_t hash = 0;
    int32_t parent = kNoPage, children = 0;
    int32_t next = kNoPage;  // in its bucket
    int32_t snapshot = -1;
    bool in = false;
  };

  const Node& At(int32_t page) const { return nodes_[static_cast<size_t>(page)]; }
  int32_t& Bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  std::string_view SaltOf(int32_t page) const;

  std::vector<Node> nodes_;                         // [pages]
  std::vector<int32_t> ids_;                        // [pages, 128]
  std::unordered_map<int32_t, std::string> salts_;  // of first blocks, where not empty
  std::vector<int32_t> buckets_;                    // heads of their lists
  std::vector<uint64_t> evicted_, unsalted_;        // by their last bits; a new one takes the place
  LruList idle_;
  int32_t blocks_ = 0;
};

}  // namespace seacliff
