// Status, Result and the macros that pass them up.
#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace seacliff {
namespace {

Result<int> Half(int x) {
  if (x % 2 != 0) return InvalidArgument("odd");
  return x / 2;
}

Result<int> Quarter(int x) {
  SC_ASSIGN_OR_RETURN(const int half, Half(x));
  SC_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

Status CheckQuarter(int x) {
  SC_RETURN_IF_ERROR(Quarter(x).status());
  return OkStatus();
}

TEST(Status, PassesUp) {
  EXPECT_EQ(Quarter(12).value(), 3);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_TRUE(CheckQuarter(4).ok());
  EXPECT_EQ(CheckQuarter(2).code(), Code::kInvalidArgument);
}

TEST(Result, HoldsWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
  ASSERT_TRUE(result.ok());
  const std::unique_ptr<int> value = std::move(result).value();
  EXPECT_EQ(*value, 5);
}

TEST(ResultDeathTest, ReadingAFailedOneAborts) {
  const Result<int> failed = NotFound("no such thing");
  EXPECT_DEATH((void)failed.value(), "no such thing");
  EXPECT_FALSE(Result<int>(OkStatus()).ok());
}

}  // namespace
}  // namespace seacliff
