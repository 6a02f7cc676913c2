// Lists the CUDA devices of this machine through the runtime, which is linked statically: a machine
// without a driver gets an answer, not a failure to start.
#include <cuda_runtime.h>

#include "kernels/cuda_devices.h"

namespace seacliff {

std::string ListCudaDevices(std::vector<Gpu>& gpus) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  std::string reason = "no CUDA device";
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    const int sm = properties.major * 10 + properties.minor;
    if (sm < 80) {
      reason = std::string(properties.name) + " is older than sm_80";
      continue;
    }
    gpus.push_back({i, properties.name, sm, properties.multiProcessorCount,
                    static_cast<int64_t>(properties.totalGlobalMem),
                    static_cast<int64_t>(properties.sharedMemPerBlockOptin),
                    static_cast<int64_t>(properties.l2CacheSize)});
  }
  return gpus.empty() ? reason : "";
}

}  // namespace seacliff
