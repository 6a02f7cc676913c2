// Every op's checks, each op a test of its own, the cpu rows under every instruction set of this
// machine; the models' real sizes are the slow ones.
#include <gtest/gtest.h>

#include "kernels/check_table.h"
#include "kernels/common/isa.h"
#include "kernels/table.h"

namespace seacliff {
namespace {

void Run(const CheckOptions& options) {
  const auto report = RunChecks(options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_FALSE(report.value().outcomes.empty());
  EXPECT_EQ(report.value().failures(), 0) << options.isa << '\n' << report.value().Describe();
}

void RunOp(const char* op, bool full) {
  CheckOptions options;
  options.op = op;
  options.full = full;
  Run(options);
}

// The best one is what RunOp tests.
void RunUnderLesserIsas(const char* op) {
  CheckOptions options;
  options.op = op;
  options.row = "cpu";
  for (const Isa isa : UsableIsas()) {
    if (isa == BestIsa()) continue;
    options.isa = IsaName(isa);
    Run(options);
    EXPECT_EQ(CurrentIsa(), BestIsa());
  }
}

std::string NameOf(const testing::TestParamInfo<OpCheck>& info) { return info.param.op; }

class OpCheckTest : public testing::TestWithParam<OpCheck> {};
TEST_P(OpCheckTest, Passes) { RunOp(GetParam().op, false); }
TEST_P(OpCheckTest, PassesUnderLesserIsas) {
  const auto rows = Rows::Parse(std::string(GetParam().op) + "=cpu");
  if (!rows.ok()) GTEST_SKIP() << "it has no cpu row";
  RunUnderLesserIsas(GetParam().op);
}
INSTANTIATE_TEST_SUITE_P(Ops, OpCheckTest, testing::ValuesIn(OpChecks().begin(), OpChecks().end()),
                         NameOf);

class OpCheckSlowTest : public testing::TestWithParam<OpCheck> {};
TEST_P(OpCheckSlowTest, PassesAtRealSizes) { RunOp(GetParam().op, true); }
INSTANTIATE_TEST_SUITE_P(Ops, OpCheckSlowTest,
                         testing::ValuesIn(OpChecks().begin(), OpChecks().end()), NameOf);

TEST(CheckOptionsTest, AnIsaThatIsNotHereIsAnError) {
  CheckOptions options;
  options.op = "rms_norm";
  options.isa = "z80";
  const auto report = RunChecks(options);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find(IsaName(BestIsa())), std::string::npos);
}

}  // namespace
}  // namespace seacliff
