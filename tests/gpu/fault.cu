// The kernel that faults.
#include <cuda_runtime.h>

#include "tests/gpu/fault.h"

namespace seacliff {
namespace {

__global__ void Write(volatile int* to) { *to = 1; }

}  // namespace

void WriteToNull(const Device& device) {
  Write<<<1, 1, 0, static_cast<cudaStream_t>(device.stream())>>>(nullptr);
}

}  // namespace seacliff
