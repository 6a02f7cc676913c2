// Pools, page tables, prefixes and snapshots of the cache as integers.
#include "cache/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace seacliff {
namespace {

constexpr int64_t kWindow = 128;

void ExpectBooks(const CachePlan& plan, std::vector<const SequencePages*> open) {
  const Status status = plan.CheckBooks(open);
  EXPECT_TRUE(status.ok()) << status.message();
}

// Tokens with their hashes.
struct Tokens {
  // Block i holds ids that depend on blocks[i]; `more` further tokens follow.
  explicit Tokens(std::vector<int32_t> blocks, int32_t more = 0, std::string with_salt = "")
      : salt(std::move(with_salt)) {
    for (const int32_t block : blocks) {
      for (int32_t i = 0; i < kPageTokens; ++i) ids.push_back(block * 1000 + i);
    }
    for (int32_t i = 0; i < more; ++i) ids.push_back(-i);
    ExtendHashes(salt, ids, hashes);
  }
  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  TokenChain chain() const { return {salt, ids, hashes}; }

  std::string salt;
  std::vector<int32_t> ids;
  std::vector<uint64_t> hashes;
};

// Computes `tokens` from the match on, block by block, with a snapshot at its last boundary, and
// closes. Returns how many tokens came from the cache.
int64_t Serve(CachePlan& plan, const Tokens& tokens, bool keep = true) {
  const PrefixMatch match = plan.Match(tokens.chain());
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open(match, tokens.size() + 1, copy);
  EXPECT_EQ(copy.has_value(), match.blocks > 0);
  const int64_t last = (tokens.size() - 1) / kPageTokens * kPageTokens;
  for (int64_t at = match.blocks * kPageTokens; at < tokens.size();) {
    at = std::min(at + kPageTokens, tokens.size());
    EXPECT_TRUE(plan.Extend(at, pages));
    plan.Commit(tokens.chain(), at, pages);
    if (at == last) plan.TakeSnapshot(at, keep, pages);
    plan.Trim(at, pages);
    ExpectBooks(plan, {&pages});
  }
  plan.Close(pages);
  ExpectBooks(plan, {});
  return match.blocks * kPageTokens;
}

TEST(PagePoolTest, HandsOutEachPageOnceAndTakesItBack) {
  PagePool pool(3);
  std::vector<int32_t> pages = {pool.Take(), pool.Take(), pool.Take()};
  EXPECT_EQ(pool.free(), 0);
  std::sort(pages.begin(), pages.end());
  EXPECT_EQ(pages, (std::vector<int32_t>{0, 1, 2}));
  pool.Share(1);
  pool.Release(1);
  EXPECT_EQ(pool.used(), 3);
  pool.Release(1);
  EXPECT_EQ(pool.used(), 2);
  EXPECT_EQ(pool.holders(1), 0);
  EXPECT_EQ(pool.Take(), 1);
}

TEST(PagePoolDeathTest, RefusesWhatItDidNotGive) {
  PagePool pool(2);
  EXPECT_DEATH(pool.Release(0), "holders");
  EXPECT_DEATH(pool.Share(0), "holders");
  EXPECT_DEATH(pool.Release(2), "pages");
  (void)pool.Take();
  (void)pool.Take();
  EXPECT_DEATH((void)pool.Take(), "empty");
}

TEST(CachePlanTest, WindowPagesGoWhenNoQuerySeesThem) {
  CachePlan plan({8, 8, 1, 0}, kWindow, 512);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open({}, 1024, copy);
  ASSERT_TRUE(plan.Extend(300, pages));
  ASSERT_EQ(pages.window.size(), 3u);
  // The query at position 254 sees 127 .. 254; the one at 255 sees 128 .. 255.
  plan.Trim(254, pages);
  EXPECT_GE(pages.window[0], 0);
  plan.Trim(255, pages);
  EXPECT_EQ(pages.window[0], kNoPage);
  EXPECT_GE(pages.window[1], 0);
  EXPECT_EQ(plan.window_pool().used(), 2);
  EXPECT_EQ(plan.compressed_pool().used(), 3);
  ExpectBooks(plan, {&pages});
  plan.Close(pages);
  EXPECT_EQ(plan.window_pool().used() + plan.compressed_pool().used() + plan.slots().used(), 0);
  ExpectBooks(plan, {});
}

// However a step's tokens are divided, the promised window pages suffice (Take would abort), and
// every position that a query sees has its page.
TEST(CachePlanTest, WindowPromiseHoldsForAnyDivisionOfSteps) {
  std::mt19937_64 random(7);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 300; ++round) {
    const int64_t window = round % 3 == 0 ? pick(1, 400) : kWindow;
    const int64_t seqs = pick(1, 6), step = pick(seqs, 1000), longest = pick(1, 3000);
    const CacheLimits limits = {.max_num_seqs = seqs,
                                .max_num_batched_tokens = step,
                                .max_model_len = longest,
                                .max_positions = longest,
                                .window = window,
                                .prefix_caching = false};
    const Result<SizedCache> sized = SizeCache(limits, {1, 1, 1, 1});
    ASSERT_TRUE(sized.ok()) << sized.status().message();
    CachePlan plan(sized->size, window, step);
    std::vector<SequencePages> pages(static_cast<size_t>(seqs));
    std::vector<int64_t> computed(static_cast<size_t>(seqs), 0);
    std::optional<RowCopy> copy;
    for (SequencePages& p : pages) {
      ASSERT_TRUE(plan.HasSlot(longest));
      p = plan.Open({}, longest, copy);
    }
    EXPECT_FALSE(plan.HasSlot(1));
    for (int s = 0; s < 40; ++s) {
      int64_t budget = step;
      std::vector<int64_t> chunk(pages.size());
      for (size_t i = 0; i < pages.size(); ++i) {
        chunk[i] = std::min(pick(0, budget), longest - computed[i]);
        budget -= chunk[i];
        ASSERT_TRUE(plan.Extend(computed[i] + chunk[i], pages[i]));
      }
      for (size_t i = 0; i < pages.size(); ++i) {
        for (int64_t p = std::max<int64_t>(0, computed[i] - window + 1); p < computed[i] + chunk[i];
             ++p) {
          ASSERT_GE(pages[i].window[static_cast<size_t>(p / kPageTokens)], 0);
        }
        computed[i] += chunk[i];
        plan.Trim(computed[i], pages[i]);
      }
      std::vector<const SequencePages*> open;
      for (const SequencePages& p : pages) open.push_back(&p);
      ExpectBooks(plan, open);
    }
    for (SequencePages& p : pages) plan.Close(p);
    ExpectBooks(plan, {});
  }
}

TEST(CachePlanTest, StartsBehindASnapshotWithItsPages) {
  CachePlan plan({20, 20, 2, 4}, kWindow, 512);
  const Tokens first({1, 2, 3}, 50);
  EXPECT_EQ(Serve(plan, first), 0);
  EXPECT_EQ(plan.compressed_pool().used(), 3);  // the incomplete page is free again
  EXPECT_EQ(plan.window_pool().used(), 1);      // the snapshot's
  EXPECT_EQ(plan.available(), 20);

  const Tokens next({1, 2, 3, 4}, 7);
  const PrefixMatch match = plan.Match(next.chain());
  EXPECT_EQ(match.blocks, 3);
  EXPECT_EQ(match.known, 3);
  EXPECT_EQ(match.missed[static_cast<size_t>(CacheMiss::kCold)], 1);
  EXPECT_EQ(plan.AvailableIn(match), 3);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open(match, 1000, copy);
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy->slot, pages.slot);
  EXPECT_EQ(copy->position, 3 * 128);
  EXPECT_TRUE(copy->to_slot);
  EXPECT_EQ(pages.compressed.size(), 3u);
  EXPECT_EQ(pages.window[0], kNoPage);
  EXPECT_EQ(pages.window[1], kNoPage);
  EXPECT_GE(pages.window[2], 0);
  EXPECT_EQ(plan.available(), 17);
  EXPECT_EQ(plan.AvailableIn(match), 0);
  ExpectBooks(plan, {&pages});
  plan.Close(pages);
  // The very same prompt again: at least its last token is computed.
  const Tokens same({1, 2, 3});
  EXPECT_EQ(plan.Match(same.chain()).blocks, 0);
  EXPECT_EQ(plan.Match(same.chain()).missed[static_cast<size_t>(CacheMiss::kSnapshot)], 2);
}

TEST(CachePlanTest, AWindowOfSeveralPagesIsKeptWhole) {
  CachePlan plan({40, 20, 2, 4}, /*window=*/300, 512);
  EXPECT_EQ(Serve(plan, Tokens({1, 2, 3, 4}, 5)), 0);
  const Tokens next({1, 2, 3, 4}, 9);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open(plan.Match(next.chain()), 1000, copy);
  // The query at 512 sees 213 .. 512: pages 1, 2 and 3.
  EXPECT_EQ(pages.first_window, 1);
  EXPECT_EQ(pages.window[0], kNoPage);
  for (size_t page = 1; page < 4; ++page) EXPECT_GE(pages.window[page], 0);
  ExpectBooks(plan, {&pages});
  plan.Close(pages);
  // And one whose window reaches beyond the start.
  EXPECT_EQ(Serve(plan, Tokens({7, 8}, 5)), 0);
  EXPECT_EQ(Serve(plan, Tokens({7, 8}, 6)), 256);
}

TEST(CachePlanTest, EqualPrefixesAreStoredOnce) {
  CachePlan plan({40, 20, 4, 8}, kWindow, 512);
  const Tokens a({1, 2, 3}, 9), b({1, 2, 4}, 9);
  std::optional<RowCopy> copy;
  SequencePages pa = plan.Open(plan.Match(a.chain()), 500, copy);
  SequencePages pb = plan.Open(plan.Match(b.chain()), 500, copy);
  ASSERT_TRUE(plan.Extend(a.size(), pa));
  ASSERT_TRUE(plan.Extend(b.size(), pb));
  EXPECT_EQ(plan.compressed_pool().used(), 8);
  plan.Commit(a.chain(), a.size(), pa);
  plan.Commit(b.chain(), b.size(), pb);
  EXPECT_EQ(plan.compressed_pool().used(), 6);
  EXPECT_EQ(pa.compressed[0], pb.compressed[0]);
  EXPECT_EQ(pa.compressed[1], pb.compressed[1]);
  EXPECT_NE(pa.compressed[2], pb.compressed[2]);
  ExpectBooks(plan, {&pa, &pb});
  plan.Close(pa);
  ExpectBooks(plan, {&pb});
  EXPECT_EQ(plan.index().idle().size(), 1);
  plan.Close(pb);
  EXPECT_EQ(plan.index().blocks(), 4);
}

TEST(CachePlanTest, EvictsTheLeastRecentChainFromItsEnd) {
  CachePlan plan({40, 8, 2, 8}, kWindow, 512);
  const Tokens a({1, 2, 3}, 1), b({1, 5, 6}, 1), c({7, 8, 9}, 1);
  Serve(plan, a);
  Serve(plan, b);
  EXPECT_EQ(plan.index().blocks(), 5);
  Serve(plan, c);  // needs 4 pages, 3 are free: one of a's own goes, its last
  EXPECT_EQ(plan.evicted_blocks(), 1u);
  PrefixMatch match = plan.Match(a.chain());
  EXPECT_EQ(match.known, 2);
  EXPECT_EQ(match.blocks, 0);
  EXPECT_EQ(match.missed[static_cast<size_t>(CacheMiss::kSnapshot)], 2);
  EXPECT_EQ(match.missed[static_cast<size_t>(CacheMiss::kEvicted)], 1);
  EXPECT_EQ(plan.Match(b.chain()).blocks, 3);
  // Used again, b outlives c.
  EXPECT_EQ(Serve(plan, b), 384);
  Serve(plan, Tokens({11, 12, 13, 14}, 1));
  EXPECT_EQ(plan.Match(b.chain()).blocks, 3);
  EXPECT_LT(plan.Match(c.chain()).known, 3);
}

TEST(CachePlanTest, WhatIsHeldIsNotEvicted) {
  CachePlan plan({40, 4, 2, 8}, kWindow, 512);
  const Tokens a({1, 2}, 1);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open({}, 384, copy);
  ASSERT_TRUE(plan.Extend(257, pages));
  plan.Commit(a.chain(), 257, pages);
  SequencePages other = plan.Open({}, 384, copy);
  EXPECT_EQ(plan.available(), 1);
  EXPECT_FALSE(plan.Extend(256, other));  // and takes nothing
  EXPECT_EQ(other.compressed.size(), 0u);
  EXPECT_TRUE(plan.Extend(128, other));
  ExpectBooks(plan, {&pages, &other});
  plan.Close(pages);
  EXPECT_EQ(plan.available(), 3);
  plan.Close(other);
}

TEST(CachePlanTest, SnapshotsGoLeastRecentFirst) {
  CachePlan plan({40, 40, 2, 2}, kWindow, 512);
  const Tokens a({1}, 1), b({2}, 1), c({3}, 1);
  Serve(plan, a);
  Serve(plan, b);
  EXPECT_EQ(Serve(plan, a), 128);
  Serve(plan, c);
  EXPECT_EQ(plan.dropped_snapshots(), 1u);
  EXPECT_EQ(plan.Match(a.chain()).blocks, 1);
  EXPECT_EQ(plan.Match(b.chain()).blocks, 0);
  EXPECT_EQ(plan.Match(b.chain()).known, 1);
  EXPECT_EQ(plan.Match(c.chain()).blocks, 1);
}

TEST(CachePlanTest, SnapshotsGiveTheirWindowPagesToLiveSequences) {
  // 3 pages for a sequence and 1 for a step of 128: all that is beyond is the snapshots'.
  CachePlan plan({4, 40, 1, 8}, kWindow, 128);
  for (int32_t i = 1; i <= 6; ++i) Serve(plan, Tokens({i}, 1));
  EXPECT_GT(plan.dropped_snapshots(), 0u);
  EXPECT_GT(plan.snapshots().used(), 0);
}

TEST(CachePlanTest, ARollingSnapshotIsReplacedUnlessItIsWanted) {
  CachePlan plan({40, 40, 2, 8}, kWindow, 512);
  const Tokens tokens({1, 2, 3, 4}, 1);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open({}, 600, copy);
  for (int64_t at = 128; at <= 512; at += 128) {
    ASSERT_TRUE(plan.Extend(at, pages));
    plan.Commit(tokens.chain(), at, pages);
    EXPECT_TRUE(plan.TakeSnapshot(at, /*keep=*/at == 256, pages).has_value());
    plan.Trim(at, pages);
    ExpectBooks(plan, {&pages});
  }
  EXPECT_EQ(plan.snapshots().used(), 2);  // at 256 and at 512
  EXPECT_EQ(plan.dropped_snapshots(), 0u);
  // Another starts from the rolling one: from then on it is kept.
  SequencePages other = plan.Open(plan.Match(tokens.chain()), 600, copy);
  EXPECT_EQ(other.blocks, 4);
  const Tokens longer({1, 2, 3, 4, 5}, 1);
  ASSERT_TRUE(plan.Extend(640, pages));
  plan.Commit(longer.chain(), 640, pages);
  EXPECT_TRUE(plan.TakeSnapshot(640, false, pages).has_value());
  EXPECT_EQ(plan.snapshots().used(), 3);
  plan.Close(pages);
  plan.Close(other);
  ExpectBooks(plan, {});
}

TEST(CachePlanTest, SaltsAreApartAndTheMissIsNamed) {
  CachePlan plan({40, 40, 2, 8}, kWindow, 512);
  Serve(plan, Tokens({1, 2}, 1, "a"));
  const Tokens b({1, 2}, 1, "b"), none({1, 2}, 1);
  for (const Tokens* tokens : {&b, &none}) {
    const PrefixMatch match = plan.Match(tokens->chain());
    EXPECT_EQ(match.known, 0);
    EXPECT_EQ(match.missed[static_cast<size_t>(CacheMiss::kSalt)], 2);
  }
  EXPECT_EQ(plan.Match(Tokens({3, 2}, 1).chain()).missed[static_cast<size_t>(CacheMiss::kCold)], 2);
  EXPECT_EQ(Serve(plan, Tokens({1, 2}, 1, "a")), 256);
}

TEST(CachePlanTest, WhatCannotBeTrustedIsForgotten) {
  CachePlan plan({40, 40, 3, 8}, kWindow, 512);
  Serve(plan, Tokens({1, 2}, 1));
  const Tokens bad({1, 2, 3}, 1), good({1, 5}, 1);
  std::optional<RowCopy> copy;
  SequencePages held = plan.Open({}, 300, copy);
  ASSERT_TRUE(plan.Extend(256, held));
  plan.Commit(good.chain(), 256, held);
  SequencePages pages = plan.Open(plan.Match(bad.chain()), 600, copy);
  ASSERT_TRUE(plan.Extend(385, pages));
  plan.Commit(bad.chain(), 385, pages);
  plan.Close(pages, /*trusted=*/false);
  ExpectBooks(plan, {&held});
  // Its own block and the one nobody else has are gone; the shared first one is not.
  EXPECT_EQ(plan.Match(bad.chain()).known, 1);
  EXPECT_EQ(plan.snapshots().used(), 0);
  plan.Close(held);
  EXPECT_EQ(plan.Match(good.chain()).known, 2);
}

TEST(CachePlanTest, BooksThatAreWrongAreTold) {
  CachePlan plan({40, 40, 2, 8}, kWindow, 512);
  std::optional<RowCopy> copy;
  SequencePages pages = plan.Open({}, 600, copy);
  ASSERT_TRUE(plan.Extend(300, pages));
  EXPECT_FALSE(plan.CheckBooks({}).ok());
  SequencePages wrong = pages;
  wrong.compressed.pop_back();
  const SequencePages* open[] = {&wrong};
  EXPECT_NE(plan.CheckBooks(open).message().find("compressed page"), std::string::npos);
  plan.Close(pages);
}

}  // namespace
}  // namespace seacliff
