// The tree of known blocks; see prefix_index.h.
#include "cache/prefix_index.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "tensor/paged_view.h"

namespace seacliff {
namespace {

constexpr size_t kBlockBytes = kPageTokens * sizeof(int32_t);
// The least number of evicted and of unsalted hashes that are remembered.
constexpr size_t kRemembered = 4096;

size_t TableSize(int32_t pages, size_t least) {
  return std::bit_ceil(std::max(static_cast<size_t>(pages) * 2, least));
}

std::span<const int32_t> IdsOf(const TokenChain& chain, int64_t block) {
  return chain.ids.subspan(static_cast<size_t>(block * kPageTokens), kPageTokens);
}

uint64_t UnsaltedHash(std::span<const int32_t> ids) {
  return XXH3_64bits_withSeed(ids.data(), kBlockBytes, 0);
}

}  // namespace

void ExtendHashes(std::string_view salt, std::span<const int32_t> ids,
                  std::vector<uint64_t>& hashes) {
  for (size_t block = hashes.size(); (block + 1) * kPageTokens <= ids.size(); ++block) {
    const uint64_t before =
        block > 0 ? hashes[block - 1] : XXH3_64bits_withSeed(salt.data(), salt.size(), 1);
    hashes.push_back(XXH3_64bits_withSeed(ids.data() + block * kPageTokens, kBlockBytes, before));
  }
}

PrefixIndex::PrefixIndex(int32_t pages)
    : nodes_(static_cast<size_t>(pages)),
      ids_(static_cast<size_t>(pages) * kPageTokens),
      buckets_(TableSize(pages, 1), kNoPage),
      evicted_(TableSize(pages, kRemembered)),
      unsalted_(kRemembered),
      idle_(pages) {}

std::string_view PrefixIndex::SaltOf(int32_t page) const {
  const auto found = salts_.find(page);
  return found == salts_.end() ? std::string_view() : found->second;
}

int32_t PrefixIndex::Find(const TokenChain& chain, int64_t block, int32_t parent) const {
  const uint64_t hash = chain.hashes[static_cast<size_t>(block)];
  int32_t page = buckets_[hash & (buckets_.size() - 1)];
  for (; page != kNoPage; page = At(page).next) {
    if (At(page).hash != hash || At(page).parent != parent) continue;
    const std::span<const int32_t> ids = IdsOf(chain, block);
    if (!std::equal(ids.begin(), ids.end(), ids_.begin() + page * kPageTokens)) continue;
    if (parent == kNoPage && SaltOf(page) != chain.salt) continue;
    return page;
  }
  return kNoPage;
}

void PrefixIndex::Add(const TokenChain& chain, int64_t block, int32_t parent, int32_t page) {
  Node& node = nodes_[static_cast<size_t>(page)];
  SC_CHECK(!node.in && (parent == kNoPage) == (block == 0));
  node = Node();
  node.in = true;
  node.hash = chain.hashes[static_cast<size_t>(block)];
  node.parent = parent;
  node.next = Bucket(node.hash);
  Bucket(node.hash) = page;
  const std::span<const int32_t> ids = IdsOf(chain, block);
  std::copy(ids.begin(), ids.end(), ids_.begin() + page * kPageTokens);
  if (parent != kNoPage) {
    SC_CHECK(has(parent));
    ++nodes_[static_cast<size_t>(parent)].children;
  } else {
    if (!chain.salt.empty()) salts_[page] = chain.salt;
    const uint64_t unsalted = UnsaltedHash(ids);
    unsalted_[unsalted & (unsalted_.size() - 1)] = unsalted;
  }
  ++blocks_;
}

void PrefixIndex::Remove(int32_t page, bool evicted) {
  Node& node = nodes_[static_cast<size_t>(page)];
  SC_CHECK(node.in && node.children == 0);
  int32_t* link = &Bucket(node.hash);
  while (*link != page) link = &nodes_[static_cast<size_t>(*link)].next;
  *link = node.next;
  if (evicted) evicted_[node.hash & (evicted_.size() - 1)] = node.hash;
  if (node.parent != kNoPage) {
    --nodes_[static_cast<size_t>(node.parent)].children;
  } else {
    salts_.erase(page);
  }
  if (idle_.has(page)) idle_.Remove(page);
  node = Node();
  --blocks_;
}

bool PrefixIndex::WasSeenUnsalted(const TokenChain& chain) const {
  if (chain.hashes.empty()) return false;
  const uint64_t hash = UnsaltedHash(IdsOf(chain, 0));
  return unsalted_[hash & (unsalted_.size() - 1)] == hash;
}

}  // namespace seacliff
