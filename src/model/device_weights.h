// A model's weights on a device, as they are stored.
#pragma once

#include "base/status.h"
#include "kernels/device.h"
#include "model/weights.h"
#include "seacliff/progress.h"

namespace seacliff {

class DeviceWeights {
 public:
  // Brings every weight to the device, points `weights` there and gives the originals' memory back
  // piece by piece. Threads read through 128 MiB of pinned memory; what `checkpoint`, which the
  // weights are views of, would have to make up is made on the device. kExhausted, with the number
  // of bytes, if they do not fit; kInvalidArgument if a file cannot be read.
  static Result<DeviceWeights> Upload(ModelWeights& weights, const Checkpoint& checkpoint,
                                      Device& device, const LoadProgress& progress);

  int64_t bytes() const { return memory_.bytes(); }

  // What an array of `bytes` takes of the memory.
  static constexpr int64_t Aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }
  // What they will all take.
  static int64_t BytesOf(ModelWeights& weights);

 private:
  Buffer memory_;
};

}  // namespace seacliff
