// One CUDA device as code that is not CUDA sees it: memory, copies, and the stream in whose order
// everything runs. Errors stay: after the first, calls do nothing, and TakeError tells it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "kernels/machine.h"
#include "tensor/buffer.h"

namespace seacliff {

// What rows may use of the device, for checks that play a smaller card; 0: all.
struct DeviceLimits {
  int64_t shared_memory = 0;  // bytes of a block
  int32_t multiprocessors = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // As limited.
  const Gpu& gpu() const { return gpu_; }

  // Zeroed. Empty after an error.
  virtual Buffer Allocate(int64_t bytes) = 0;
  // `from` may be reused when this returns.
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;
  // Waits for all that was launched before.
  virtual void Download(void* to, const void* from, int64_t bytes) = 0;
  // Memory for one op, until the next asks. Grows when more is asked than ever before.
  virtual void* Workspace(int64_t bytes) = 0;
  // Waits until all that was launched is done, and tells the first error since the last call.
  virtual Status Synchronize() = 0;
  // The first error since the last call, without waiting.
  virtual Status TakeError() = 0;
  // cudaStream_t.
  virtual void* stream() const = 0;

 protected:
  explicit Device(Gpu gpu) : gpu_(std::move(gpu)) {}

 private:
  Gpu gpu_;
};

// kUnimplemented if this program was built without CUDA, kNotFound without a usable device: the
// message says why, in one line.
Result<std::unique_ptr<Device>> OpenDevice(int32_t index, const DeviceLimits& limits);

}  // namespace seacliff
