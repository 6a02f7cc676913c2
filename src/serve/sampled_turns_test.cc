// The store of sampled turns: what is found, what is not and why, and what goes first.
#include "serve/sampled_turns.h"

#include <gtest/gtest.h>

#include <thread>

namespace seacliff::serve {
namespace {

using Ids = std::vector<int32_t>;
using Miss = SampledTurns::Miss;

constexpr uint64_t kScope = 7;

SampledTurns::Key KeyOf(const Ids& before, std::string_view text, uint64_t scope = kScope) {
  uint64_t hash = scope;
  for (const int32_t id : before) hash = hash * 31 + static_cast<uint64_t>(id) + 1;
  return {hash, TurnHash(scope, text)};
}

TEST(SampledTurns, GivesWhatWasSampledThereAndNowhereElse) {
  SampledTurns turns(10'000);
  turns.Add(KeyOf({1, 2}, "ok"), Ids{5, 6});
  turns.Add(KeyOf({1, 3}, "ok"), Ids{56});
  turns.Add(KeyOf({1, 2}, "no"), Ids{9});  // another choice of the same prompt
  EXPECT_EQ(turns.Find(KeyOf({1, 2}, "ok")).ids, (Ids{5, 6}));
  EXPECT_EQ(turns.Find(KeyOf({1, 3}, "ok")).ids, (Ids{56}));
  EXPECT_EQ(turns.Find(KeyOf({1, 2}, "no")).ids, (Ids{9}));
  EXPECT_FALSE(turns.Find(KeyOf({1, 3}, "no")).ids);
  EXPECT_FALSE(turns.Find(KeyOf({1}, "ok")).ids);
}

TEST(SampledTurns, KeepsWhatAKeyStandsFor) {
  SampledTurns turns(10'000);
  turns.Add(KeyOf({1}, "ok"), Ids{5});
  const size_t bytes = turns.bytes();
  turns.Add(KeyOf({2}, "ok"), Ids{5}, "calls");
  EXPECT_EQ(turns.Find(KeyOf({1}, "ok")).calls, "");
  EXPECT_EQ(turns.Find(KeyOf({2}, "ok")).calls, "calls");
  EXPECT_EQ(turns.bytes(), 2 * bytes + 5);
}

TEST(SampledTurns, SaysWhyATurnIsNotThere) {
  SampledTurns turns(10'000);
  turns.Add(KeyOf({1, 2}, "ok"), Ids{5, 6});
  EXPECT_EQ(turns.Find(KeyOf({1, 2}, "okay")).miss, Miss::kEdited);
  EXPECT_EQ(turns.Find(KeyOf({4}, "ok")).miss, Miss::kTemplate);
  EXPECT_EQ(turns.Find(KeyOf({4}, "okay")).miss, Miss::kUnknown);
  // Another scope knows nothing of it.
  EXPECT_FALSE(turns.Find(KeyOf({1, 2}, "ok", kScope + 1)).ids);
  EXPECT_EQ(turns.Find(KeyOf({1, 2}, "ok", kScope + 1)).miss, Miss::kUnknown);
}

TEST(SampledTurns, NewerIdsOfTheSameTextReplaceTheOlder) {
  SampledTurns turns(10'000);
  turns.Add(KeyOf({1}, "ok"), Ids{5, 6});
  const size_t bytes = turns.bytes();
  turns.Add(KeyOf({1}, "ok"), Ids{56});
  EXPECT_EQ(turns.Find(KeyOf({1}, "ok")).ids, (Ids{56}));
  EXPECT_EQ(turns.size(), 1u);
  EXPECT_EQ(turns.bytes(), bytes - 4);
}

TEST(SampledTurns, TheLeastRecentlyUsedGoesFirst) {
  SampledTurns one(10'000);
  one.Add(KeyOf({0}, "x"), Ids(100, 1));
  const size_t cost = one.bytes();
  EXPECT_GE(cost, 400u);

  SampledTurns turns(3 * cost);
  for (int32_t i = 0; i < 3; ++i) turns.Add(KeyOf({i}, "x"), Ids(100, i));
  EXPECT_TRUE(turns.Find(KeyOf({0}, "x")).ids);
  turns.Add(KeyOf({3}, "x"), Ids(100, 3));
  EXPECT_FALSE(turns.Find(KeyOf({1}, "x")).ids);
  EXPECT_EQ(turns.Find(KeyOf({1}, "y")).miss, Miss::kUnknown);  // forgotten altogether
  for (const int32_t kept : {0, 2, 3}) EXPECT_TRUE(turns.Find(KeyOf({kept}, "x")).ids) << kept;
  EXPECT_EQ(turns.bytes(), 3 * cost);

  // A larger one drives out as many as it needs, and one that is too large none.
  turns.Add(KeyOf({4}, "x"), Ids(200, 4));
  EXPECT_LE(turns.bytes(), 3 * cost);
  EXPECT_TRUE(turns.Find(KeyOf({4}, "x")).ids);
  turns.Add(KeyOf({5}, "x"), Ids(2000, 5));
  EXPECT_FALSE(turns.Find(KeyOf({5}, "x")).ids);
  EXPECT_TRUE(turns.Find(KeyOf({4}, "x")).ids);
}

TEST(SampledTurns, WithoutMemoryKeepsNothing) {
  SampledTurns turns(0);
  turns.Add(KeyOf({1}, "ok"), Ids{5});
  EXPECT_FALSE(turns.Find(KeyOf({1}, "ok")).ids);
  EXPECT_EQ(turns.bytes(), 0u);
}

// For the thread sanitizer, and for the books.
TEST(SampledTurns, ManyThreadsMayUseIt) {
  SampledTurns turns(20'000);
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&turns, t] {
      for (int32_t i = 0; i < 500; ++i) {
        turns.Add(KeyOf({i % 60}, "x"), Ids(static_cast<size_t>(i % 90), t));
        const auto found = turns.Find(KeyOf({(i * 7) % 60}, "x"));
        if (found.ids && !found.ids->empty()) {
          EXPECT_LT(found.ids->front(), 4);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(turns.bytes(), 20'000u);
  EXPECT_GT(turns.size(), 0u);
}

}  // namespace
}  // namespace seacliff::serve
