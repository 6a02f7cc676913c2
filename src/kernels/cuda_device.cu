// A CUDA device behind kernels/device.h.
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda_devices.h"
#include "kernels/device.h"

namespace seacliff {
namespace {

void FreeDevice(void* data) { cudaFree(data); }

class CudaDevice : public Device {
 public:
  CudaDevice(Gpu gpu, cudaStream_t stream) : Device(std::move(gpu)), stream_(stream) {}
  ~CudaDevice() override {
    cudaStreamSynchronize(stream_);
    workspace_ = Buffer();
    cudaStreamDestroy(stream_);
  }

  Buffer Allocate(int64_t bytes) override {
    const size_t size = std::max<int64_t>(bytes, 256);
    void* data = nullptr;
    if (!error_.ok()) return {};
    if (!Check(cudaMalloc(&data, size), "allocating " + std::to_string(size) + " bytes")) return {};
    Check(cudaMemsetAsync(data, 0, size, stream_), "clearing memory");
    return {data, bytes, FreeDevice};
  }
  void Upload(void* to, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
          "copying to the device");
    Check(cudaStreamSynchronize(stream_), "copying to the device");
  }
  void Download(void* to, const void* from, int64_t bytes) override {
    if (!error_.ok() || bytes == 0) return;
    Check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
          "copying from the device");
    Check(cudaStreamSynchronize(stream_), "a kernel or a copy from the device");
  }
  void* Workspace(int64_t bytes) override {
    if (bytes > workspace_.bytes()) {
      Check(cudaStreamSynchronize(stream_), "a kernel");
      workspace_ = Buffer();
      workspace_ = Allocate(bytes);
    }
    return workspace_.data();
  }
  Status Synchronize() override {
    Check(cudaStreamSynchronize(stream_), "a kernel");
    return TakeError();
  }
  Status TakeError() override {
    Check(cudaGetLastError(), "a launch");
    Status error = std::move(error_);
    error_ = Status();
    return error;
  }
  void* stream() const override { return stream_; }

 private:
  bool Check(cudaError_t code, const std::string& what) {
    if (code == cudaSuccess) return true;
    if (error_.ok()) {
      const std::string text = "CUDA: " + what + ": " + cudaGetErrorString(code);
      error_ = code == cudaErrorMemoryAllocation ? Exhausted(text) : Internal(text);
    }
    if (code == cudaErrorMemoryAllocation) cudaGetLastError();  // not one of a later launch
    return false;
  }

  cudaStream_t stream_;
  Buffer workspace_;
  Status error_;
};

}  // namespace

Result<std::unique_ptr<Device>> OpenDevice(int32_t index, const DeviceLimits& limits) {
  std::vector<Gpu> gpus;
  const std::string why = ListCudaDevices(gpus);
  if (gpus.empty()) return NotFound("no usable GPU: " + why);
  const auto gpu =
      std::find_if(gpus.begin(), gpus.end(), [index](const Gpu& g) { return g.index == index; });
  if (gpu == gpus.end()) return NotFound("no usable GPU with number " + std::to_string(index));
  if (limits.shared_memory > 0) {
    gpu->shared_memory = std::min(gpu->shared_memory, limits.shared_memory);
  }
  if (limits.multiprocessors > 0) {
    gpu->multiprocessors = std::min(gpu->multiprocessors, limits.multiprocessors);
  }
  cudaStream_t stream = nullptr;
  cudaError_t code = cudaSetDevice(index);
  if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (code != cudaSuccess) {
    return Internal("CUDA: opening GPU " + std::to_string(index) + ": " + cudaGetErrorString(code));
  }
  return std::unique_ptr<Device>(std::make_unique<CudaDevice>(std::move(*gpu), stream));
}

}  // namespace seacliff
