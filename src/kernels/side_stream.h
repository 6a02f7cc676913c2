// A second stream of a device, for copies that need not wait for what its own stream runs.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "kernels/device.h"

namespace seacliff {

class SideStream {
 public:
  virtual ~SideStream() = default;

  // Copies while the device runs what was launched before; what is launched from now on comes after
  // the copy. Does not wait. The pinned memory is the copy's until the device was waited for.
  virtual Status Upload(void* to, const void* pinned, int64_t bytes) = 0;
};

// The device must outlive it.
Result<std::unique_ptr<SideStream>> OpenSideStream(Device& device);

}  // namespace seacliff
