// A model's weights on a device, as they are stored.
#pragma once

#include "base/status.h"
#include "kernels/device.h"
#include "model/weights.h"
#include "seacliff/progress.h"

namespace seacliff {

class DeviceWeights {
 public:
  // Copies every weight to the device, points `weights` at the copies and gives the originals'
  // memory back one by one. kExhausted, with the number of bytes, if they do not fit.
  static Result<DeviceWeights> Upload(ModelWeights& weights, Device& device,
                                      const LoadProgress& progress);

  int64_t bytes() const { return memory_.bytes(); }

 private:
  Buffer memory_;
};

}  // namespace seacliff
