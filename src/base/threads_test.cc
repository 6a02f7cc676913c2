// The worker pool: every index once, in ranges of the grain, again and again, asleep or awake, with
// as many threads as one likes.
#include "base/threads.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/cpus.h"

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

// Sums 0..n-1 in pieces; a lost or doubled piece shows.
int64_t SumBelow(ThreadPool& pool, int64_t n) {
  std::atomic<int64_t> sum{0};
  pool.For(n, 3, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum += i;
  });
  return sum;
}

TEST(ThreadPool, WakesAfterPausesOfAnyLength) {
  for (int threads : {2, 3}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 60; ++round) {
      // About the length of the spin, where a worker is just falling asleep, and well beyond.
      const auto pause = round % 3 == 0 ? std::chrono::microseconds(2000)
                                        : ThreadPool::kSpin + std::chrono::microseconds(round - 30);
      std::this_thread::sleep_for(pause);
      for (int64_t n : {1, 4, 50}) ASSERT_EQ(SumBelow(pool, n), n * (n - 1) / 2);
    }
  }
}

TEST(ThreadPool, SleepingWorkersTakePart) {
  ThreadPool pool(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  // Each of two pieces waits for the other to begin.
  std::atomic<int> begun{0};
  pool.For(2, 1, [&](int64_t, int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST(ThreadPool, MoreThreadsThanCores) {
  ThreadPool pool(4 * CoresOfOurOwn() + 3);
  for (int64_t round = 0; round < 300; ++round) {
    ASSERT_EQ(SumBelow(pool, 100 + round), (100 + round) * (99 + round) / 2);
  }
}

TEST(ThreadPool, AnyThreadMayCall) {
  ThreadPool pool(CoresOfOurOwn());
  for (int i = 0; i < 20; ++i) {
    std::thread([&] { EXPECT_EQ(SumBelow(pool, 1000), 499500); }).join();
    EXPECT_EQ(SumBelow(pool, 1000), 499500);
  }
}

TEST(ThreadPool, PoolsStandSideBySide) {
  ThreadPool first(2), second(3);
  std::thread other([&] {
    for (int i = 0; i < 500; ++i) ASSERT_EQ(SumBelow(second, 40), 780);
  });
  for (int i = 0; i < 500; ++i) ASSERT_EQ(SumBelow(first, 41), 820);
  other.join();
}

TEST(ThreadPool, StartsAndStopsWithoutALoop) {
  for (int i = 0; i < 50; ++i) const ThreadPool pool(1 + i % 5);
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPool, IdleThreadsSleep) {
  ThreadPool pool(CoresOfOurOwn() + 1), pinned(CoresOfOurOwn());
  EXPECT_EQ(SumBelow(pool, 1000) + SumBelow(pinned, 1000), 999000);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(CpuSeconds() - before, 0.1);
}

TEST(ThreadPoolDeathTest, ALoopInsideALoopAborts) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (int threads : {1, 2}) {
    EXPECT_DEATH(
        {
          ThreadPool pool(threads);
          pool.For(4, 1, [&](int64_t, int64_t) { pool.For(1, 1, [](int64_t, int64_t) {}); });
        },
        "SC_CHECK failed");
  }
}

TEST(ThreadPool, ZeroThreadsMeansOnePerCore) {
  EXPECT_EQ(ThreadPool(0).threads(), CoresOfOurOwn());
  EXPECT_GE(CoresOfOurOwn(), 1);
}

}  // namespace
}  // namespace seacliff
