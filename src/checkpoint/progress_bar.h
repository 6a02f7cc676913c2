// Progress of loading, drawn on stderr: a bar on a terminal, a log line for each tenth elsewhere.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/checkpoint.h"

namespace seacliff {

// `label` says what is going on ("loading"). One bar for one run from 0 to total.
Progress ShowProgress(const std::string& label);

// The text of one state, without the bar if `bar_width` is 0:
// "loading [#####     ]  50 %  80.0 / 159.6 GB  2.3 GB/s  0:35 left"
std::string FormatProgress(const std::string& label, int64_t done, int64_t total, double seconds,
                           int bar_width);

}  // namespace seacliff
