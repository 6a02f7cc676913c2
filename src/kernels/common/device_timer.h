// Times calls on a device: back to back in one graph on one stream, as in a real step, with
// operands that are out of the L2 cache when their turn comes again.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/device.h"

namespace seacliff {

struct CallTiming {
  double median_us = 0;  // of one call
  int64_t calls = 0;     // in the graph
};

// How many disjoint copies of its operands calls that touch `bytes` go round, so that more than
// twice the L2 (and 170 MB) passes between two uses of the same bytes: at least 2. `most`: what
// there is room for.
int64_t RotationCopies(int64_t bytes, int64_t l2_bytes, int64_t most);

// How often the list of calls is repeated, if once takes `list_us`, for a replay of 1.5 ms.
int64_t ListRepeats(double list_us);

// Of one or more; the lower one of the middle two.
double Median(std::vector<double> values);

// call(c) launches on copy c; it has run before, so that its workspace has grown. The graph goes
// round the copies; after 60 ms of replays the median of 11 or more counts. An error is the
// device's.
Result<CallTiming> TimeCalls(Device& device, int64_t copies,
                             const std::function<void(int64_t)>& call);

// The same where calls wait for the device: one at a time, with what the host does between.
Result<CallTiming> TimeWaitingCalls(Device& device, int64_t copies,
                                    const std::function<void(int64_t)>& call);

}  // namespace seacliff
