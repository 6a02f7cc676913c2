// Pools, page tables, promises and sizes of the cache as integers.
#include "cache/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace seacliff {
namespace {

constexpr int64_t kWindow = 128;

TEST(PagePoolTest, HandsOutEachPageOnceAndTakesItBack) {
  PagePool pool(3);
  std::vector<int32_t> pages = {pool.Take(), pool.Take(), pool.Take()};
  EXPECT_EQ(pool.free(), 0);
  std::sort(pages.begin(), pages.end());
  EXPECT_EQ(pages, (std::vector<int32_t>{0, 1, 2}));
  pool.Release(1);
  EXPECT_EQ(pool.used(), 2);
  EXPECT_FALSE(pool.taken(1));
  EXPECT_EQ(pool.Take(), 1);
}

TEST(PagePoolDeathTest, RefusesWhatItDidNotGive) {
  PagePool pool(2);
  EXPECT_DEATH(pool.Release(0), "taken");
  EXPECT_DEATH(pool.Release(2), "pages");
  (void)pool.Take();
  (void)pool.Take();
  EXPECT_DEATH((void)pool.Take(), "empty");
}

TEST(CachePlanTest, WindowPagesGoWhenNoQuerySeesThem) {
  CachePlan plan({8, 8, 1}, kWindow, 512);
  SequencePages pages = plan.Open(plan.NeedOf(1024));
  plan.Extend(300, pages);
  ASSERT_EQ(pages.window.size(), 3u);
  // The query at position 254 sees 127 .. 254; the one at 255 sees 128 .. 255.
  plan.Trim(254, pages);
  EXPECT_GE(pages.window[0], 0);
  plan.Trim(255, pages);
  EXPECT_EQ(pages.window[0], -1);
  EXPECT_GE(pages.window[1], 0);
  EXPECT_EQ(plan.window_pool().used(), 2);
  EXPECT_EQ(plan.compressed_pool().used(), 3);
  const SequencePages* open[] = {&pages};
  plan.CheckBooks(open);
  plan.Close(pages);
  EXPECT_EQ(plan.window_pool().used(), 0);
  EXPECT_EQ(plan.compressed_pool().used(), 0);
  EXPECT_EQ(plan.slots().used(), 0);
  plan.CheckBooks({});
}

TEST(CachePlanTest, PromisesCountNotPagesHeld) {
  CachePlan plan({100, 10, 4}, kWindow, 128);
  SequencePages first = plan.Open(plan.NeedOf(6 * 128));
  EXPECT_TRUE(plan.Fits(plan.NeedOf(4 * 128)));
  EXPECT_FALSE(plan.Fits(plan.NeedOf(4 * 128 + 1)));  // although no page is taken yet
  EXPECT_TRUE(plan.FitsAlone(plan.NeedOf(10 * 128)));
  EXPECT_FALSE(plan.FitsAlone(plan.NeedOf(10 * 128 + 1)));
  plan.Close(first);
  EXPECT_TRUE(plan.Fits(plan.NeedOf(10 * 128)));
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
                                .window = window};
    const Result<SizedCache> sized = SizeCache(limits, {1, 1, 1});
    ASSERT_TRUE(sized.ok()) << sized.status().message();
    CachePlan plan(sized->size, window, step);
    std::vector<SequencePages> pages(static_cast<size_t>(seqs));
    std::vector<int64_t> computed(static_cast<size_t>(seqs), 0);
    for (SequencePages& p : pages) {
      ASSERT_TRUE(plan.Fits(plan.NeedOf(longest)));
      p = plan.Open(plan.NeedOf(longest));
    }
    for (int s = 0; s < 40; ++s) {
      int64_t budget = step;
      std::vector<int64_t> chunk(pages.size());
      for (size_t i = 0; i < pages.size(); ++i) {
        chunk[i] = std::min(pick(0, budget), longest - computed[i]);
        budget -= chunk[i];
        plan.Extend(computed[i] + chunk[i], pages[i]);
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
      plan.CheckBooks(open);
    }
    for (SequencePages& p : pages) plan.Close(p);
    plan.CheckBooks({});
  }
}

TEST(SizeCacheTest, FromLengthFromBytesAndFromNeither) {
  const CacheUnitBytes unit = {100, 10, 1000};
  CacheLimits limits = {.max_num_seqs = 4,
                        .max_num_batched_tokens = 512,
                        .max_model_len = 1000,
                        .max_positions = 1 << 20};
  Result<SizedCache> sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  EXPECT_EQ(sized->size.window_pages, 4 * 3 + 4);
  EXPECT_EQ(sized->size.compressed_pages, 4 * 8);
  EXPECT_EQ(sized->size.slots, 4);
  EXPECT_EQ(sized->max_model_len, 1000);
  EXPECT_EQ(sized->bytes, 16 * 100 + 32 * 10 + 4 * 1000);

  limits.kv_cache_memory = 1600 + 4000 + 123;
  sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  EXPECT_EQ(sized->size.compressed_pages, 12);
  EXPECT_LE(sized->bytes, limits.kv_cache_memory);

  limits.kv_cache_memory = 1600 + 4000 + 79;  // one byte below 8 pages
  sized = SizeCache(limits, unit);
  ASSERT_FALSE(sized.ok());
  EXPECT_NE(sized.status().message().find("kv_cache_memory"), std::string::npos);

  limits.max_model_len = 0;  // now the length follows from the bytes
  sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  EXPECT_EQ(sized->max_model_len, 7 * 128);

  limits.kv_cache_memory = 0;
  sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  EXPECT_EQ(sized->max_model_len, 4 * kDefaultTokensPerSequence);
  EXPECT_EQ(sized->size.compressed_pages, 4 * kDefaultTokensPerSequence / 128);
  limits.max_positions = 200;
  EXPECT_EQ(SizeCache(limits, unit)->max_model_len, 200);
}

TEST(SizeCacheTest, RefusesImpossibleSettings) {
  const CacheLimits good = {
      .max_num_seqs = 4, .max_num_batched_tokens = 4, .max_model_len = 100, .max_positions = 100};
  EXPECT_TRUE(SizeCache(good, {1, 1, 1}).ok());
  CacheLimits limits = good;
  limits.max_num_seqs = 0;
  EXPECT_FALSE(SizeCache(limits, {1, 1, 1}).ok());
  limits = good;
  limits.max_num_batched_tokens = 3;
  EXPECT_FALSE(SizeCache(limits, {1, 1, 1}).ok());
  limits = good;
  limits.max_model_len = 101;
  EXPECT_FALSE(SizeCache(limits, {1, 1, 1}).ok());
  limits = good;
  limits.kv_cache_memory = -1;
  EXPECT_FALSE(SizeCache(limits, {1, 1, 1}).ok());
}

}  // namespace
}  // namespace seacliff
