// Every op's checks, each op a test of its own; the models' real sizes are the slow ones.
#include <gtest/gtest.h>

#include "kernels/check_table.h"

namespace seacliff {
namespace {

void RunOp(const char* op, bool full) {
  CheckOptions options;
  options.op = op;
  options.full = full;
  const auto report = RunChecks(options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_FALSE(report.value().outcomes.empty());
  EXPECT_EQ(report.value().failures(), 0) << report.value().Describe();
}

std::string NameOf(const testing::TestParamInfo<OpCheck>& info) { return info.param.op; }

class OpCheckTest : public testing::TestWithParam<OpCheck> {};
TEST_P(OpCheckTest, Passes) { RunOp(GetParam().op, false); }
INSTANTIATE_TEST_SUITE_P(Ops, OpCheckTest, testing::ValuesIn(OpChecks().begin(), OpChecks().end()),
                         NameOf);

class OpCheckSlowTest : public testing::TestWithParam<OpCheck> {};
TEST_P(OpCheckSlowTest, PassesAtRealSizes) { RunOp(GetParam().op, true); }
INSTANTIATE_TEST_SUITE_P(Ops, OpCheckSlowTest,
                         testing::ValuesIn(OpChecks().begin(), OpChecks().end()), NameOf);

}  // namespace
}  // namespace seacliff
