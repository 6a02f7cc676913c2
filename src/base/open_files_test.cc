// The limit of open files, within what the hard limit allows.
#include "base/open_files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace seacliff {
namespace {

TEST(OpenFiles, RaisesTheSoftLimitUpToTheHardOne) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_GE(before.rlim_max, rlim_t{200});
  const rlimit low{100, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(RaiseOpenFiles(50), 100u);
  EXPECT_EQ(RaiseOpenFiles(150), 150u);
  rlimit raised{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &raised), 0);
  EXPECT_EQ(raised.rlim_cur, rlim_t{150});
  if (before.rlim_max != RLIM_INFINITY && before.rlim_max < (rlim_t{1} << 30)) {
    EXPECT_EQ(RaiseOpenFiles(size_t{1} << 40), before.rlim_max);
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

}  // namespace
}  // namespace seacliff
