// A normal run is a fast one: with the demo model no op falls back to its reference row.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/common/isa.h"
#include "kernels/sample/op.h"
#include "model/direct.h"

namespace seacliff {
namespace {

constexpr int64_t kPrompt = 300, kDecoded = 20;

// Greedy: the id of the only row of logits.
int32_t SampleOne(Context& k, const std::vector<float>& logits) {
  SampleScratch scratch;
  Token token;
  SampleRow row;
  row.logits = logits;
  row.temperature = 0;
  row.scratch = &scratch;
  row.token = &token;
  Sample(k, {{&row, 1}});
  EXPECT_TRUE(k.TakeError().ok());
  EXPECT_TRUE(row.error.ok());
  return token.id;
}

TEST(CpuRows, ANormalRunUsesNoReferenceRow) {
  if (BestIsa() == Isa::kPlain) GTEST_SKIP() << "a machine without vectors";
  ModelOptions options;
  options.dir = SEACLIFF_SOURCE_DIR "/models/tiny";
  options.mtp = true;
  DirectRunner::SizeCache(1, kPrompt + kDecoded, options);
  const auto model = Model::Load(options, {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Context& k = model.value()->context();
  DirectRunner runner(*model.value(), 1, kPrompt + kDecoded);

  std::vector<int32_t> ids;
  for (int32_t i = 0; i < kPrompt; ++i) ids.push_back(i * 7919 % 4000);
  std::vector<float> logits;
  const auto step = [&] {
    const DirectRunner::Piece piece{0, ids};
    const auto last = static_cast<int32_t>(ids.size() - 1);
    ASSERT_TRUE(runner.Step({&piece, 1}, {&last, 1}, logits).ok());
    ids = {SampleOne(k, logits)};
  };
  for (int64_t i = 0; i <= kDecoded; ++i) step();
  ASSERT_TRUE(runner.StepMtp(ids, logits).ok());

  const std::string rows = RowsRun(k);
  for (const char* op : {"embed", "linear", "sparse_attention", "experts", "mtp_join", "sample"}) {
    EXPECT_THAT(rows, testing::HasSubstr(op));
  }
  EXPECT_THAT(rows, testing::Not(testing::HasSubstr("=ref")));
}

// Two pages have 64 blocks, and the demo model's index picks as many.
TEST(CpuRows, TheIndexHasQueriesOnlyWhereBlocksAreLeftOut) {
  for (const int64_t length : {256, 257}) {
    ModelOptions options;
    options.dir = SEACLIFF_SOURCE_DIR "/models/tiny";
    DirectRunner::SizeCache(1, length, options);
    const auto model = Model::Load(options, {});
    ASSERT_TRUE(model.ok()) << model.status().message();
    DirectRunner runner(*model.value(), 1, length);
    const std::vector<int32_t> ids(static_cast<size_t>(length), 5);
    const DirectRunner::Piece piece{0, ids};
    ASSERT_TRUE(runner.Step({&piece, 1}, {}).ok());
    const std::string rows = RowsRun(model.value()->context());
    EXPECT_THAT(rows, testing::HasSubstr("index_topk"));
    EXPECT_EQ(rows.find("index_query") != std::string::npos, length == 257) << rows;
  }
}

}  // namespace
}  // namespace seacliff
