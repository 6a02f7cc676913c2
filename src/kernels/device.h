// One CUDA device as code that is not CUDA sees it: memory, copies, and the stream in whose order
// everything runs. Errors stay: after the first, calls do nothing, and TakeError tells it. Calls
// may come from any thread, one at a time; each makes the device that thread's current one.
#pragma once

#include <cstdint>
#include <functional>
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

// Launches that were recorded once and run again as a whole, with the same arguments.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

 protected:
  DeviceGraph() = default;
};

class Device {
 public:
  static constexpr int64_t kCounters = 16384;

  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  // As limited.
  const Gpu& gpu() const { return gpu_; }

  // Zeroed. Empty after an error, which names `what`.
  virtual Buffer Allocate(int64_t bytes, const char* what) = 0;
  Buffer Allocate(int64_t bytes) { return Allocate(bytes, "memory"); }
  // `from` may be reused when this returns.
  virtual void Upload(void* to, const void* from, int64_t bytes) = 0;
  // Waits for all that was launched before.
  virtual void Download(void* to, const void* from, int64_t bytes) = 0;
  // From device memory to device memory, in the stream's order, without waiting.
  virtual void Copy(void* to, const void* from, int64_t bytes) = 0;
  // Host memory that copies read and write in the background, zeroed. Empty after an error.
  virtual Buffer AllocatePinned(int64_t bytes) = 0;
  // In the stream's order, without waiting; the pinned memory is the copy's until then.
  virtual void UploadLater(void* to, const void* pinned, int64_t bytes) = 0;
  virtual void DownloadLater(void* pinned, const void* from, int64_t bytes) = 0;

  // Memory for one op, until the next asks. Grows when more is asked than ever before, which moves
  // it: graphs recorded before must not run any more. It cannot grow while one is recorded.
  virtual void* Workspace(int64_t bytes) = 0;
  // Pinned memory for one op that waits for its copies, until the next asks; grows likewise.
  virtual void* Pinned(int64_t bytes) = 0;
  // How often the workspace has moved.
  virtual int64_t workspace_moves() const = 0;
  // kCounters numbers on the device that are 0 between launches: a kernel that counts leaves zeros.
  virtual uint32_t* counters() const = 0;

  // What `launches` launches is recorded instead of run. Null after an error.
  virtual std::unique_ptr<DeviceGraph> Record(const std::function<void()>& launches) = 0;
  virtual void Run(const DeviceGraph& graph) = 0;
  // Microseconds that the device takes for what `launches` launches; waits for it.
  virtual double Time(const std::function<void()>& launches) = 0;

  // Whether kernels may start before those ahead of them have ended (common/cuda.cuh).
  virtual bool overlaps() const = 0;
  // Bytes that nobody holds at present.
  virtual int64_t FreeBytes() = 0;
  // A fault has ended the device's context: nothing will run in this process any more.
  virtual bool lost() const = 0;
  // Waits until all that was launched is done, and tells the first error since the last call.
  virtual Status Synchronize() = 0;
  // The first error since the last call, without waiting.
  virtual Status TakeError() = 0;
  // cudaStream_t. Asked for at each launch, since it makes the device the current one.
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
