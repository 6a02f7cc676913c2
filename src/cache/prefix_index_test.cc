// The tree of known blocks: lookups, what a wrong hash must not do, and the order of use.
#include "cache/prefix_index.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "tensor/paged_view.h"

namespace seacliff {
namespace {

// Tokens of a chain with their hashes.
struct Tokens {
  Tokens(std::string with_salt, std::vector<int32_t> blocks) : salt(std::move(with_salt)) {
    for (const int32_t block : blocks) {
      for (int32_t i = 0; i < kPageTokens; ++i) ids.push_back(block * 1000 + i);
    }
    ExtendHashes(salt, ids, hashes);
  }
  TokenChain chain() const { return {salt, ids, hashes}; }

  std::string salt;
  std::vector<int32_t> ids;
  std::vector<uint64_t> hashes;
};

TEST(LruListTest, KeepsTheOrderOfUse) {
  LruList list(4);
  EXPECT_EQ(list.first(), list.end());
  for (const int32_t id : {2, 0, 3}) list.Append(id);
  EXPECT_EQ(list.first(), 2);
  list.Remove(2);
  list.Append(2);
  EXPECT_FALSE(list.has(1));
  std::vector<int32_t> order;
  for (int32_t id = list.first(); id != list.end(); id = list.next(id)) order.push_back(id);
  EXPECT_EQ(order, (std::vector<int32_t>{0, 3, 2}));
  EXPECT_EQ(list.size(), 3);
}

TEST(PrefixIndexTest, HashesAreChainedAndSalted) {
  const Tokens a("", {1, 2, 3}), b("", {1, 2, 4}), c("x", {1, 2, 3}), d("", {5, 2, 3});
  EXPECT_EQ(a.hashes.size(), 3u);
  EXPECT_EQ(a.hashes[1], b.hashes[1]);
  EXPECT_NE(a.hashes[2], b.hashes[2]);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NE(a.hashes[i], c.hashes[i]);
    EXPECT_NE(a.hashes[i], d.hashes[i]);
  }
  // Growing token by token gives the same, and incomplete blocks have none.
  std::vector<uint64_t> grown;
  for (size_t n = 0; n <= a.ids.size(); n += 50) {
    ExtendHashes("", std::span(a.ids).first(n), grown);
    EXPECT_EQ(grown.size(), n / kPageTokens);
  }
}

TEST(PrefixIndexTest, FindsWhatWasAddedBelowItsParent) {
  PrefixIndex index(8);
  const Tokens a("", {1, 2}), b("", {1, 3});
  EXPECT_EQ(index.Find(a.chain(), 0, kNoPage), kNoPage);
  index.Add(a.chain(), 0, kNoPage, 5);
  index.Add(a.chain(), 1, 5, 2);
  index.Add(b.chain(), 1, 5, 7);
  EXPECT_EQ(index.Find(b.chain(), 0, kNoPage), 5);
  EXPECT_EQ(index.Find(a.chain(), 1, 5), 2);
  EXPECT_EQ(index.Find(b.chain(), 1, 5), 7);
  EXPECT_EQ(index.Find(b.chain(), 1, 2), kNoPage);
  EXPECT_EQ(index.children(5), 2);
  EXPECT_EQ(index.blocks(), 3);
  index.Remove(2, /*evicted=*/true);
  EXPECT_EQ(index.Find(a.chain(), 1, 5), kNoPage);
  EXPECT_TRUE(index.WasEvicted(a.hashes[1]));
  EXPECT_FALSE(index.WasEvicted(b.hashes[1]));
  EXPECT_EQ(index.children(5), 1);
}

// Whatever hash comes with them, other ids and other salts find nothing.
TEST(PrefixIndexTest, ACollisionGivesNoHit) {
  PrefixIndex index(4);
  const Tokens a("tenant", {1, 2});
  index.Add(a.chain(), 0, kNoPage, 0);
  index.Add(a.chain(), 1, 0, 1);
  Tokens other("tenant", {3, 4}), stranger("other", {1, 2});
  other.hashes = stranger.hashes = a.hashes;
  EXPECT_EQ(index.Find(other.chain(), 0, kNoPage), kNoPage);
  EXPECT_EQ(index.Find(other.chain(), 1, 0), kNoPage);
  EXPECT_EQ(index.Find(stranger.chain(), 0, kNoPage), kNoPage);
  EXPECT_EQ(index.Find(a.chain(), 0, kNoPage), 0);
}

TEST(PrefixIndexTest, ManyBlocksInFewBuckets) {
  PrefixIndex index(64);
  std::vector<Tokens> all;
  for (int32_t i = 0; i < 64; ++i) {
    all.emplace_back("", std::vector<int32_t>{i});
    all.back().hashes[0] = static_cast<uint64_t>(i % 3);
    index.Add(all.back().chain(), 0, kNoPage, i);
  }
  for (int32_t i = 0; i < 64; i += 2) index.Remove(i, false);
  for (int32_t i = 0; i < 64; ++i) {
    EXPECT_EQ(index.Find(all[static_cast<size_t>(i)].chain(), 0, kNoPage),
              i % 2 == 0 ? kNoPage : i);
  }
}

TEST(PrefixIndexTest, RemembersFirstBlocksUnderAnySalt) {
  PrefixIndex index(4);
  const Tokens a("tenant", {1}), b("", {1}), c("", {2});
  EXPECT_FALSE(index.WasSeenUnsalted(b.chain()));
  index.Add(a.chain(), 0, kNoPage, 0);
  EXPECT_TRUE(index.WasSeenUnsalted(b.chain()));
  EXPECT_FALSE(index.WasSeenUnsalted(c.chain()));
}

}  // namespace
}  // namespace seacliff
