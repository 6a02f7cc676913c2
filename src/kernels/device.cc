// OpenDevice of a build without CUDA; the other is in cuda_device.cu.
#include "kernels/device.h"

namespace seacliff {

#ifndef SEACLIFF_CUDA
Result<std::unique_ptr<Device>> OpenDevice(int32_t, const DeviceLimits&) {
  return Unimplemented("this program was built without CUDA (make cuda builds it)");
}
#endif

}  // namespace seacliff
