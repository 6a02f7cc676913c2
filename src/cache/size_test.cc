// Sizes of the cache from limits and from bytes.
#include "cache/size.h"

#include <gtest/gtest.h>

namespace seacliff {
namespace {

TEST(SizeCacheTest, FromLengthFromBytesAndFromNeither) {
  const CacheUnitBytes unit = {100, 10, 1000, 50};
  CacheLimits limits = {.max_num_seqs = 4,
                        .max_num_batched_tokens = 512,
                        .max_model_len = 1000,
                        .max_positions = 1 << 20};
  Result<SizedCache> sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  // Three window pages a sequence, those of a step, and one for each of 2 snapshots a sequence.
  EXPECT_EQ(sized->size.window_pages, 4 * 3 + 4 + 8);
  EXPECT_EQ(sized->size.compressed_pages, 4 * 8);
  EXPECT_EQ(sized->size.slots, 4);
  EXPECT_EQ(sized->size.snapshots, 8);
  EXPECT_EQ(sized->max_model_len, 1000);
  EXPECT_EQ(sized->bytes, 24 * 100 + 32 * 10 + 4 * 1000 + 8 * 50);

  constexpr int64_t kFixed = 2400 + 4000 + 400;
  limits.kv_cache_memory = kFixed + 123;
  sized = SizeCache(limits, unit);
  ASSERT_TRUE(sized.ok());
  EXPECT_EQ(sized->size.compressed_pages, 12);
  EXPECT_LE(sized->bytes, limits.kv_cache_memory);

  limits.kv_cache_memory = kFixed + 79;  // one byte below 8 pages
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

TEST(SizeCacheTest, SnapshotsGrowWithThePages) {
  const CacheUnitBytes unit = {100, 10, 1000, 50};
  CacheLimits limits = {.max_num_seqs = 2,
                        .max_num_batched_tokens = 512,
                        .max_model_len = 1 << 20,
                        .max_positions = 1 << 20,
                        .kv_cache_memory = 1 << 20};
  const SizedCache sized = SizeCache(limits, unit).value();
  EXPECT_EQ(sized.size.snapshots, sized.size.compressed_pages / kPagesPerSnapshot);
  EXPECT_EQ(sized.size.window_pages, 2 * 3 + 4 + sized.size.snapshots);
  EXPECT_EQ(sized.bytes, CacheBytes(sized.size, unit, 0));
  // Not one page more would fit.
  EXPECT_LE(sized.bytes, limits.kv_cache_memory);
  EXPECT_GT(sized.bytes + 160, limits.kv_cache_memory);
  EXPECT_LE(LeastCacheBytes(limits, unit), limits.kv_cache_memory);

  limits.prefix_caching = false;
  const SizedCache plain = SizeCache(limits, unit).value();
  EXPECT_EQ(plain.size.snapshots, 0);
  EXPECT_EQ(plain.size.window_pages, 2 * 3 + 4);
  // A window that reaches over two pages and a bit.
  limits.prefix_caching = true;
  limits.window = 300;
  const SizedCache wide = SizeCache(limits, unit).value();
  EXPECT_EQ(wide.size.window_pages, 2 * 5 + 4 + 3 * wide.size.snapshots);
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
