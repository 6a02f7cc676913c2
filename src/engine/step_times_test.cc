// Buckets of step times.
#include "seacliff/step_times.h"

#include <gtest/gtest.h>

namespace seacliff {
namespace {

TEST(StepTimes, BoundsSpanFiveDecadesEvenly) {
  EXPECT_EQ(StepTimes::Bound(0), 1e-4);
  EXPECT_EQ(StepTimes::Bound(40), 1e-3);
  EXPECT_EQ(StepTimes::Bound(StepTimes::kBounds - 1), 10);
  for (size_t i = 1; i < StepTimes::kBounds; ++i) {
    const double ratio = StepTimes::Bound(i) / StepTimes::Bound(i - 1);
    EXPECT_GT(ratio, 1.04) << i;
    EXPECT_LT(ratio, 1.08) << i;
  }
}

TEST(StepTimes, ATimeCountsUpToItsBound) {
  StepTimes times;
  times.Add(StepTimes::Bound(7));
  times.Add(StepTimes::Bound(7) * 1.0001);
  times.Add(1e-9);
  times.Add(11);
  EXPECT_EQ(times.counts()[0], 1u);
  EXPECT_EQ(times.counts()[7], 1u);
  EXPECT_EQ(times.counts()[8], 1u);
  EXPECT_EQ(times.counts()[StepTimes::kBounds], 1u);
  EXPECT_EQ(times.count(), 4u);
  EXPECT_NEAR(times.seconds(), 11 + StepTimes::Bound(7) * 2.0001, 1e-6);
}

}  // namespace
}  // namespace seacliff
