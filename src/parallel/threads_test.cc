// Ranks as threads: sums, gathered rows, errors of one rank, and ranks that do not come.
#include "parallel/threads.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>

#include "parallel/testing/run_all.h"

namespace seacliff {
namespace {

std::vector<float> Values(int32_t rank, size_t count) {
  std::mt19937 random(static_cast<uint32_t>(rank) + 1);
  std::vector<float> values(count);
  for (float& v : values) v = std::normal_distribution<float>()(random);
  return values;
}

TEST(ThreadGroup, AddsInTheOrderOfRanks) {
  for (const int32_t size : {1, 2, 3, 4}) {
    constexpr int64_t kRows = 3, kColumns = 67;
    const Ranks ranks = MakeThreadGroup(size);
    std::vector<std::vector<float>> all;
    for (int32_t r = 0; r < size; ++r) all.push_back(Values(r, kRows * kColumns));
    std::vector<float> want = all[0];
    for (size_t r = 1; r < all.size(); ++r) {
      for (size_t i = 0; i < want.size(); ++i) want[i] += all[r][i];
    }
    const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
      comm.AllReduce(
          k, {all[static_cast<size_t>(comm.rank())].data(), DType::kF32, {kRows, kColumns}});
    });
    for (size_t r = 0; r < all.size(); ++r) {
      EXPECT_TRUE(errors[r].ok());
      EXPECT_EQ(all[r], want) << "rank " << r << " of " << size;
    }
  }
}

TEST(ThreadGroup, RoundsBf16Once) {
  // 1 + 2^-8 + 2^-9 is rounded up to 1 + 2^-7 if it is rounded once, and ends as 1 otherwise.
  const Ranks ranks = MakeThreadGroup(3);
  std::vector<Bf16> values = {ToBf16(1), ToBf16(0x1p-8f), ToBf16(0x1p-9f)};
  RunAll(ranks, [&](Context& k, Communicator& comm) {
    comm.AllReduce(k, {&values[static_cast<size_t>(comm.rank())], DType::kBf16, {1, 1}});
  });
  for (const Bf16 v : values) EXPECT_EQ(ToFloat(v), 1 + 0x1p-7f);
}

TEST(ThreadGroup, GathersSideBySide) {
  constexpr int32_t kSize = 3;
  const Ranks ranks = MakeThreadGroup(kSize);
  std::vector<float> all(2 * kSize * 2);
  RunAll(ranks, [&](Context& k, Communicator& comm) {
    const auto base = static_cast<float>(10 * comm.rank());
    const std::vector<float> own = {base, base + 1, base + 2, base + 3};
    View<float, 2> to;
    if (comm.rank() == 0) to = {all.data(), {2, 2 * kSize}};
    comm.Gather(k, {own.data(), {2, 2}}, to);
  });
  EXPECT_EQ(all, (std::vector<float>{0, 1, 10, 11, 20, 21, 2, 3, 12, 13, 22, 23}));
}

TEST(ThreadGroup, AnErrorOfOneRankIsEverybodys) {
  const Ranks ranks = MakeThreadGroup(3);
  const auto step = [&](bool fails) {
    return RunAll(ranks, [&](Context& k, Communicator& comm) {
      if (fails && comm.rank() == 1) k.Fail(InvalidArgument("rank 1 says no"));
      float v = 1;
      comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
      if (!fails) {
        EXPECT_EQ(v, 3);
      }
      comm.Gather(k, {&v, {0, 1}}, {});
    });
  };
  for (const Status& error : step(true)) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_EQ(error.message(), "rank 1 says no");
  }
  EXPECT_TRUE(ranks[0]->error().ok());
  for (const Status& error : step(false)) EXPECT_TRUE(error.ok());  // they go on
}

TEST(ThreadGroup, ARankThatDoesNotComeIsNamed) {
  const Ranks ranks = MakeThreadGroup(3, std::chrono::milliseconds(50));
  const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
    float v = 1;
    comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
    if (comm.rank() != 2) comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
  });
  for (const size_t r : {0, 1}) {
    EXPECT_EQ(errors[r].code(), Code::kUnavailable);
    EXPECT_NE(errors[r].message().find("rank 2 of 3 did not come"), std::string::npos)
        << errors[r].message();
  }
  EXPECT_TRUE(errors[2].ok());
  EXPECT_EQ(ranks[2]->error().code(), Code::kUnavailable);  // it learns when it comes
}

TEST(ThreadGroup, AbortEndsEveryWait) {
  const Ranks ranks = MakeThreadGroup(3, std::chrono::hours(1));
  const auto errors = RunAll(ranks, [&](Context& k, Communicator& comm) {
    float v = 1;
    if (comm.rank() == 1) {
      comm.Abort(Unavailable("the device of rank 1 is lost"));
      comm.Abort(Unavailable("too late"));
      return;
    }
    comm.AllReduce(k, {&v, DType::kF32, {1, 1}});
    comm.AllReduce(k, {&v, DType::kF32, {1, 1}});  // and from now on
  });
  for (const size_t r : {0, 2}) {
    EXPECT_EQ(errors[r].message(), "the device of rank 1 is lost");
  }
}

}  // namespace
}  // namespace seacliff
