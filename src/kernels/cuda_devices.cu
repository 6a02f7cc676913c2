// Lists the CUDA devices of this machine through the runtime, which is linked statically: a machine
// without a driver gets an answer, not a failure to start.
#include <cuda_runtime.h>

#include <cstdlib>

#include "kernels/cuda_devices.h"

namespace seacliff {

std::string ListCudaDevices(std::vector<Gpu>& gpus) {
  // All kernels are loaded at the start: loading one may want the GPU idle, which it is not while a
  // kernel waits for another rank's.
  setenv("CUDA_MODULE_LOADING", "EAGER", /*overwrite=*/0);
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
