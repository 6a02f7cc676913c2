// Several devices on one GPU, for tests of ranks where there are fewer GPUs than ranks.
#pragma once

#include <memory>

#include "base/status.h"
#include "kernels/device.h"

namespace seacliff {

// One of `sharers` devices on the GPU, whose kernels may wait for those of the others. It plans for
// its part of the multiprocessors, and its launches do not overlap: kernels that had started early
// and wait behind one that waits would hold what the others' kernels need. Errors as OpenDevice's.
Result<std::unique_ptr<Device>> OpenSharedDevice(int32_t index, int32_t sharers);

}  // namespace seacliff
