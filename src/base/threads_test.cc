// The worker pool: every index once, in ranges of the grain, again and again.
#include "base/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace seacliff {
namespace {

TEST(ThreadPool, CoversEachIndexExactlyOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count : {0, 1, 7, 64, 1000}) {
      for (int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        pool.For(count, grain, [&](int64_t begin, int64_t end) {
          ASSERT_LT(begin, end);
          ASSERT_LE(end - begin, std::max<int64_t>(grain, 1));
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        for (const auto& n : seen) ASSERT_EQ(n, 1);
      }
    }
  }
}

TEST(ThreadPool, ManyShortLoopsSeeEachOthersWrites) {
  ThreadPool pool(4);
  std::vector<int64_t> values(16, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.For(16, 1, [&](int64_t begin, int64_t) { values[static_cast<size_t>(begin)] += begin; });
  }
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 2000 * static_cast<int64_t>(i));
}

TEST(ThreadPool, ZeroThreadsMeansOnePerCore) { EXPECT_GE(ThreadPool(0).threads(), 1); }

}  // namespace
}  // namespace seacliff
