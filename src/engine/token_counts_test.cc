// TokenCounts: prompt ids count 0, output ids as often as they came, all in order.
#include "engine/token_counts.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace seacliff {
namespace {

using Pairs = std::vector<std::pair<int32_t, int32_t>>;

Pairs PairsOf(const TokenCounts& counts) {
  Pairs pairs;
  for (const TokenCount& count : counts.counts()) pairs.emplace_back(count.id, count.count);
  return pairs;
}

TEST(TokenCountsTest, PromptAndOutputAreToldApart) {
  TokenCounts counts(std::vector<int32_t>{3, 0, 0}, 8);
  EXPECT_EQ(PairsOf(counts), (Pairs{{0, 0}, {3, 0}}));
  counts.Add(2);
  counts.Add(1);
  counts.Add(2);
  EXPECT_EQ(PairsOf(counts), (Pairs{{0, 0}, {1, 1}, {2, 2}, {3, 0}}));
  counts.Add(3);
  counts.Add(9);
  EXPECT_EQ(PairsOf(counts), (Pairs{{0, 0}, {1, 1}, {2, 2}, {3, 1}, {9, 1}}));
}

TEST(TokenCountsTest, AddingWhatWasPromisedMovesNothing) {
  TokenCounts counts(std::vector<int32_t>{5}, 3);
  const TokenCount* data = counts.counts().data();
  for (const int32_t id : {4, 6, 1, 4}) counts.Add(id);
  EXPECT_EQ(counts.counts().data(), data);
  EXPECT_TRUE(PairsOf(TokenCounts()).empty());
}

}  // namespace
}  // namespace seacliff
