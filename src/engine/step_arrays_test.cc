// The batch arrays of a plan, entry by entry.
#include "engine/step_arrays.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace seacliff {
namespace {

using testing::ElementsAre;

template <typename T>
std::vector<int32_t> Values(const View<T, 1>& view) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < view.shape[0]; ++i) values.push_back(view(i));
  return values;
}

SequenceStep MakeStep(const Sequence& sequence, int64_t tokens, int64_t logits) {
  SequenceStep step;
  step.sequence = &sequence;
  step.first_position = sequence.computed;
  step.ids = std::span<const int32_t>(sequence.tokens)
                 .subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens));
  step.logits = logits;
  return step;
}

TEST(StepArraysTest, RaggedSequencesAndPageTablesOfUnequalLength) {
  Sequence decode, chunk;
  decode.tokens.resize(300);
  std::iota(decode.tokens.begin(), decode.tokens.end(), 0);
  decode.computed = 299;
  decode.pages.slot = 3;
  decode.pages.window = {-1, 7, 8};
  decode.pages.compressed = {1, 2, 4};
  chunk.tokens = {50, 51, 52, 53};
  chunk.computed = 1;
  chunk.pages.slot = 0;
  chunk.pages.window = {9};
  chunk.pages.compressed = {0};

  StepArrays arrays(8, 2, 512);
  for (const bool chunk_first : {true, false}) {  // what an earlier step left must not show
    StepPlan plan;
    plan.steps = {MakeStep(decode, 1, 1), MakeStep(chunk, 2, 0)};
    if (chunk_first) std::swap(plan.steps[0], plan.steps[1]);
    plan.tokens = 3;
    plan.logits = 1;
    const Batch batch = arrays.Fill(plan);
    if (chunk_first) continue;
    EXPECT_THAT(Values(batch.ids), ElementsAre(299, 51, 52));
    EXPECT_THAT(Values(batch.positions), ElementsAre(299, 1, 2));
    EXPECT_THAT(Values(batch.seq_of), ElementsAre(0, 1, 1));
    EXPECT_THAT(Values(batch.seq_begin), ElementsAre(0, 1, 3));
    EXPECT_THAT(Values(batch.slots), ElementsAre(3, 0));
    EXPECT_THAT(Values(batch.logit_rows), ElementsAre(0));
    EXPECT_THAT(Values(batch.window_pages[0]), ElementsAre(-1, 7, 8));
    EXPECT_THAT(Values(batch.window_pages[1]), ElementsAre(9, -1, -1));
    EXPECT_THAT(Values(batch.compressed_pages[0]), ElementsAre(1, 2, 4));
    EXPECT_THAT(Values(batch.compressed_pages[1]), ElementsAre(0, -1, -1));
  }
}

}  // namespace
}  // namespace seacliff
