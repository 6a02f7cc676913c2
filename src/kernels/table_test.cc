// The dispatch table: the override, its errors, and the printed table.
#include "kernels/table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/check_table.h"
#include "kernels/rms_norm/op.h"

namespace seacliff {
namespace {

using testing::HasSubstr;

TEST(Rows, ParsesOverrides) {
  const auto rows = Rows::Parse("rms_norm=ref,linear=ref");
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  EXPECT_EQ(rows.value().forced(Op::kRmsNorm), "ref");
  EXPECT_EQ(rows.value().forced(Op::kLinear), "ref");
  EXPECT_EQ(rows.value().forced(Op::kRouter), "");
  EXPECT_TRUE(Rows::Parse("").ok());
}

TEST(Rows, AnUnknownRowListsThoseOfItsOp) {
  const auto rows = Rows::Parse("linear=ref,rms_norm=fast");
  ASSERT_FALSE(rows.ok());
  EXPECT_EQ(rows.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(rows.status().message(), HasSubstr("unknown 'rms_norm=fast'"));
  EXPECT_THAT(rows.status().message(), HasSubstr("rms_norm=ref"));
  EXPECT_THAT(rows.status().message(), testing::Not(HasSubstr("router=ref")));
}

TEST(Rows, AnUnknownOpListsAll) {
  for (const char* text : {"nope=ref", "linear", "=", "linear=ref,,", "linear=ref=ref"}) {
    const auto rows = Rows::Parse(text);
    ASSERT_FALSE(rows.ok()) << text;
    EXPECT_THAT(rows.status().message(), HasSubstr("valid are: ")) << text;
  }
  EXPECT_THAT(Rows::Parse("nope=ref").status().message(), HasSubstr("sparse_attention=ref"));
}

TEST(DescribeKernels, NamesEveryOpAndOneChoice) {
  const std::string text = DescribeKernels(Rows());
  for (const OpCheck& check : OpChecks()) EXPECT_THAT(text, HasSubstr(check.op));
  size_t chosen = 0;
  for (size_t at = text.find("CHOSEN"); at != std::string::npos; at = text.find("CHOSEN", at + 1)) {
    ++chosen;
  }
  EXPECT_GE(chosen, OpChecks().size());
}

TEST(Context, KeepsTheFirstErrorAndSkipsWhatFollows) {
  Context k(1);
  k.Fail(Internal("first"));
  k.Fail(Internal("second"));
  float memory[2] = {1, 1};
  const Bf16 weight = ToBf16(1);
  const Act<2> x(memory, DType::kF32, {1, 1}), out(memory + 1, DType::kF32, {1, 1});
  RmsNorm(k, {x, View<const Bf16, 1>(&weight, {1}), 1e-6f, out});
  EXPECT_EQ(memory[1], 1);  // not run
  EXPECT_EQ(k.TakeError().message(), "first");
  EXPECT_TRUE(k.ok());
  memory[0] = 2;
  RmsNorm(k, {x, View<const Bf16, 1>(&weight, {1}), 1e-6f, out});
  EXPECT_NEAR(memory[1], 1, 1e-6);
}

}  // namespace
}  // namespace seacliff
