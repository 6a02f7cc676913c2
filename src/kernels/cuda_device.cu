// A CUDA device behind kernels/device.h.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/common/cuda.cuh"
#include "kernels/cuda_devices.h"
#include "kernels/device.h"
#include "kernels/shared_device.h"

namespace seacliff {
namespace {

void FreeDevice(void* data) { cudaFree(data); }
void FreePinned(void* data) { cudaFreeHost(data); }

// Errors after which every call of this process fails: the context is gone.
bool EndsContext(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

__global__ void Probe() {}

// The calling thread's current device, of which the runtime's calls are: a process may have
// several, and each thread starts with the first.
void MakeCurrent(int32_t index) {
  thread_local int32_t current = -1;
  if (current == index) return;
  cudaSetDevice(index);  // cannot fail: the device was opened
  current = index;
}

// Whether this program's code was compiled for sm_90 or later, not just the card.
bool CodeOverlaps() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, Probe) == cudaSuccess && attributes.ptxVersion >= 90;
}

class CudaGraph : public DeviceGraph {
 public:
  explicit CudaGraph(cudaGraphExec_t exec) : exec_(exec) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  cudaGraphExec_t exec() const { return exec_; }

 private:
  cudaGraphExec_t exec_;
};

class CudaDevice : public Device {
 public:
  CudaDevice(Gpu gpu, bool overlaps, cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end)
      : Device(std::move(gpu)), stream_(stream), begin_(begin), end_(end), overlaps_(overlaps) {
    counters_ = Allocate(kCounters * 4, "counters");
  }
  ~CudaDevice() override {
    MakeCurrent(gpu().index);
    cudaStreamSynchronize(stream_);
    workspace_ = Buffer();
    pinned_ = Buffer();
    counters_ = Buffer();
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }

  Buffer Allocate(int64_t bytes, const char* what) override {
    const size_t size = std::max<int64_t>(bytes, 256);
    void* data = nullptr;
    if (!error_.ok()) return {};
    const cudaStream_t stream = Stream();
    if (!Check(cudaMalloc(&data, size), std::to_string(size) + " bytes for " + what)) return {};
    Check(cudaMemsetAsync(data, 0, size, stream), "clearing memory");
    return {data, bytes, FreeDevice};
  }
  void Upload(void* to, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, Stream()),
          "copying to the device");
    Check(cudaStreamSynchronize(Stream()), "copying to the device");
  }
  void Download(void* to, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, Stream()),
          "copying from the device");
    Check(cudaStreamSynchronize(Stream()), "a kernel or a copy from the device");
  }
  void Copy(void* to, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, Stream()),
          "copying on the device");
  }
  Buffer AllocatePinned(int64_t bytes) override {
    const size_t size = std::max<int64_t>(bytes, 64);
    void* data = nullptr;
    if (!error_.ok()) return {};
    MakeCurrent(gpu().index);
    if (!Check(cudaHostAlloc(&data, size, cudaHostAllocDefault),
               "allocating " + std::to_string(size) + " bytes of pinned host memory")) {
      return {};
    }
    std::memset(data, 0, size);
    return {data, bytes, FreePinned};
  }
  void UploadLater(void* to, const void* pinned, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, Stream()),
          "copying to the device");
  }
  void DownloadLater(void* pinned, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(
        cudaMemcpyAsync(pinned, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, Stream()),
        "copying from the device");
  }
  void* Workspace(int64_t bytes) override {
    if (bytes > workspace_.bytes()) {
      SC_CHECK(!recording_);
      Check(cudaStreamSynchronize(Stream()), "a kernel");
      workspace_ = Buffer();
      workspace_ = Allocate(bytes, "the workspace");
      ++workspace_moves_;
    }
    return workspace_.data();
  }
  void* Pinned(int64_t bytes) override {
    if (bytes > pinned_.bytes()) {
      pinned_ = Buffer();
      pinned_ = AllocatePinned(bytes);
    }
    return pinned_.data();
  }
  int64_t workspace_moves() const override { return workspace_moves_; }
  uint32_t* counters() const override { return static_cast<uint32_t*>(counters_.data()); }

  std::unique_ptr<DeviceGraph> Record(const std::function<void()>& launches) override {
    if (!error_.ok()) return nullptr;
    if (!Check(cudaStreamBeginCapture(Stream(), cudaStreamCaptureModeThreadLocal), "recording")) {
      return nullptr;
    }
    recording_ = true;
    launches();
    recording_ = false;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    Check(cudaStreamEndCapture(Stream(), &graph), "recording");
    if (error_.ok()) Check(cudaGraphInstantiate(&exec, graph, 0), "making a graph");
    if (graph != nullptr) cudaGraphDestroy(graph);
    return exec == nullptr ? nullptr : std::make_unique<CudaGraph>(exec);
  }
  void Run(const DeviceGraph& graph) override {
    if (!error_.ok()) return;
    Check(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).exec(), Stream()), "a graph");
  }
  double Time(const std::function<void()>& launches) override {
    float milliseconds = 0;
    Check(cudaEventRecord(begin_, Stream()), "an event");
    launches();
    Check(cudaEventRecord(end_, Stream()), "an event");
    if (Check(cudaEventSynchronize(end_), "a kernel")) {
      Check(cudaEventElapsedTime(&milliseconds, begin_, end_), "an event");
    }
    return 1e3 * milliseconds;
  }

  bool overlaps() const override { return overlaps_; }
  int64_t FreeBytes() override {
    size_t free = 0, total = 0;
    MakeCurrent(gpu().index);
    Check(cudaMemGetInfo(&free, &total), "asking for free memory");
    return static_cast<int64_t>(free);
  }
  bool lost() const override { return lost_; }
  Status Synchronize() override {
    Check(cudaStreamSynchronize(Stream()), "a kernel");
    return TakeError();
  }
  Status TakeError() override {
    Check(cudaGetLastError(), "a launch");
    Status error = std::move(error_);
    error_ = Status();
    return error;
  }
  void* stream() const override { return Stream(); }

 private:
  // Every use of the device begins here.
  cudaStream_t Stream() const {
    MakeCurrent(gpu().index);
    return stream_;
  }
  bool Check(cudaError_t code, const std::string& what) {
    if (code == cudaSuccess) return true;
    lost_ = lost_ || EndsContext(code);
    if (error_.ok()) {
      const std::string text = "CUDA: " + what + ": " + cudaGetErrorString(code);
      error_ = code == cudaErrorMemoryAllocation ? Exhausted(text)
               : lost_                           ? Unavailable(text)
                                                 : Internal(text);
    }
    if (code == cudaErrorMemoryAllocation) cudaGetLastError();  // not one of a later launch
    return false;
  }

  cudaStream_t stream_;
  cudaEvent_t begin_, end_;  // Time's
  Buffer workspace_, pinned_, counters_;
  int64_t workspace_moves_ = 0;
  bool recording_ = false, lost_ = false;
  const bool overlaps_;
  Status error_;
};

Result<Gpu> FindGpu(int32_t index) {
  std::vector<Gpu> gpus;
  const std::string why = ListCudaDevices(gpus);
  if (gpus.empty()) return NotFound("no usable GPU: " + why);
  const auto gpu =
      std::find_if(gpus.begin(), gpus.end(), [index](const Gpu& g) { return g.index == index; });
  if (gpu == gpus.end()) return NotFound("no usable GPU with number " + std::to_string(index));
  return std::move(*gpu);
}

// `may_overlap`: what the code and the card allow.
Result<std::unique_ptr<Device>> Open(Gpu gpu, bool may_overlap) {
  const int32_t index = gpu.index;
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaError_t code = cudaSetDevice(index);
  MakeCurrent(index);
  if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (code == cudaSuccess) code = cudaEventCreate(&begin);
  if (code == cudaSuccess) code = cudaEventCreate(&end);
  if (code != cudaSuccess) {
    return Internal("CUDA: opening GPU " + std::to_string(index) + ": " + cudaGetErrorString(code));
  }
  return std::unique_ptr<Device>(std::make_unique<CudaDevice>(
      std::move(gpu), may_overlap && CodeOverlaps(), stream, begin, end));
}

}  // namespace

void cuda::AllowShared(Context& k, const void* kernel, int64_t bytes) {
  constexpr int64_t kAlways = 48 * 1024;
  if (bytes <= kAlways) return;
  static std::mutex mutex;
  static std::map<std::pair<int32_t, const void*>, int64_t> allowed;
  const std::lock_guard lock(mutex);
  int64_t& most = allowed[{k.device()->gpu().index, kernel}];
  if (bytes <= most) return;
  most = bytes;
  k.device()->stream();  // makes it this thread's current device, which the attribute is set on
  // A launch that asks for more than there is fails.
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(bytes));
}

Result<std::unique_ptr<Device>> OpenDevice(int32_t index, const DeviceLimits& limits) {
  SC_ASSIGN_OR_RETURN(Gpu gpu, FindGpu(index));
  if (limits.shared_memory > 0) {
    gpu.shared_memory = std::min(gpu.shared_memory, limits.shared_memory);
  }
  if (limits.multiprocessors > 0) {
    gpu.multiprocessors = std::min(gpu.multiprocessors, limits.multiprocessors);
  }
  return Open(std::move(gpu), true);
}

Result<std::unique_ptr<Device>> OpenSharedDevice(int32_t index, int32_t sharers) {
  SC_ASSIGN_OR_RETURN(Gpu gpu, FindGpu(index));
  // Some are left to blocks that wait for another's, which a collective has at most so many of.
  constexpr int32_t kWaiting = 32;
  gpu.multiprocessors = std::max((gpu.multiprocessors - kWaiting) / sharers, 1);
  return Open(std::move(gpu), false);
}

}  // namespace seacliff
