// OpenDevice of a build without CUDA; the other is in cuda_device.cu.
#include "kernels/device.h"

#include "kernels/shared_device.h"

namespace seacliff {

#ifndef SEACLIFF_CUDA
Result<std::unique_ptr<Device>> OpenDevice(int32_t, const DeviceLimits&) {
  return Unimplemented("this program was built without CUDA (make cuda builds it)");
}
Result<std::unique_ptr<Device>> OpenSharedDevice(int32_t, int32_t) { return OpenDevice(0, {}); }
#endif

}  // namespace seacliff
