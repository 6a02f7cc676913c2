// Stacks of threads that wait in known places.
#include "base/stacks.h"

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

namespace seacliff {
namespace {

TEST(StacksTest, EveryThreadIsThereWithItsNameAndStack) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "skipped: the thread sanitizer keeps signals from threads that wait";
#endif
  std::promise<void> ready, gate;
  std::shared_future<void> open = gate.get_future().share();
  std::thread waiting([&] {
    NameThread("waits-here");
    ready.set_value();
    open.wait();
  });
  ready.get_future().wait();
  for (int round = 0; round < 3; ++round) {
    const std::string stacks = StacksOfAllThreads();
    const size_t at = stacks.find("\"waits-here\"");
    ASSERT_NE(at, std::string::npos) << stacks;
    // Its frames: the handler, the wait, and what called it.
    const size_t next = stacks.find("thread ", at);
    const std::string stack = stacks.substr(at, next - at);
    EXPECT_NE(stack.find("\n  3 "), std::string::npos) << stacks;
    EXPECT_EQ(stack.find("does not answer"), std::string::npos) << stacks;
  }
  gate.set_value();
  waiting.join();
}

// Those who are asked go on as before, however often.
TEST(StacksTest, ThreadsGoOn) {
  std::atomic<bool> stop = false;
  std::atomic<int64_t> rounds = 0;
  std::thread works([&] {
    while (!stop) ++rounds;
  });
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(StacksOfAllThreads().empty());
  const int64_t before = rounds;
  while (rounds == before) std::this_thread::yield();
  stop = true;
  works.join();
}

}  // namespace
}  // namespace seacliff
