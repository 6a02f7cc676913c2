// Progress of loading, drawn on stderr: a bar on a terminal, elsewhere a log line for each tenth,
// at most one a second.
#pragma once

#include <cstdint>
#include <string>

#include "seacliff/progress.h"

namespace seacliff {

// One bar for each phase.
LoadProgress ShowProgress();

// The text of one state of a phase, without the bar if `bar_width` is 0:
// "loading [#####     ]  50 %  80.0 / 159.6 GB  2.3 GB/s  0:35 left"
std::string FormatProgress(const std::string& label, int64_t done, int64_t total, double seconds,
                           int bar_width);

}  // namespace seacliff
