// The text of the progress bar.
#include "checkpoint/progress_bar.h"

#include <gtest/gtest.h>

namespace seacliff {
namespace {

TEST(ProgressBar, Formats) {
  EXPECT_EQ(FormatProgress("loading", 0, 160'000'000'000, 0, 0), "loading   0 %  0.0 / 160.0 GB");
  EXPECT_EQ(FormatProgress("loading", 80'000'000'000, 160'000'000'000, 40, 10),
            "loading [#####     ]  50 %  80.0 / 160.0 GB  2.0 GB/s  0:40 left");
  EXPECT_EQ(FormatProgress("loading", 160'000'000'000, 160'000'000'000, 3725, 4),
            "loading [####] 100 %  160.0 / 160.0 GB  0.0 GB/s  in 1:02:05");
  EXPECT_EQ(FormatProgress("loading", 1'000'000, 4'000'000, 0.5, 0),
            "loading  25 %  1.0 / 4.0 MB  2.0 MB/s  0:02 left");
  EXPECT_EQ(FormatProgress("loading", 0, 0, 0, 2), "loading [##] 100 %  0.0 / 0.0 MB");
}

}  // namespace
}  // namespace seacliff
