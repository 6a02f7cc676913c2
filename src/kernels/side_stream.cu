// A CUDA stream beside that of a device.
#include <cuda_runtime.h>

#include <string>

#include "kernels/side_stream.h"

namespace seacliff {
namespace {

class CudaSideStream : public SideStream {
 public:
  explicit CudaSideStream(Device& device) : device_(device) {}
  ~CudaSideStream() override {
    device_.stream();  // makes the device the current one
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    if (copied_ != nullptr) cudaEventDestroy(copied_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  Status Open() {
    device_.stream();
    cudaError_t code = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    if (code == cudaSuccess) code = cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming);
    return Told(code, "opening a second stream");
  }

  Status Upload(void* to, const void* pinned, int64_t bytes) override {
    const auto main = static_cast<cudaStream_t>(device_.stream());
    cudaError_t code =
        cudaMemcpyAsync(to, pinned, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_);
    if (code == cudaSuccess) code = cudaEventRecord(copied_, stream_);
    if (code == cudaSuccess) code = cudaStreamWaitEvent(main, copied_, 0);
    return Told(code, "copying to the device beside its work");
  }

 private:
  // The device knows best what is wrong with it.
  Status Told(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return OkStatus();
    SC_RETURN_IF_ERROR(device_.Synchronize());
    return Internal(std::string("CUDA: ") + what + ": " + cudaGetErrorString(code));
  }

  Device& device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t copied_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<SideStream>> OpenSideStream(Device& device) {
  auto side = std::make_unique<CudaSideStream>(device);
  SC_RETURN_IF_ERROR(side->Open());
  return std::unique_ptr<SideStream>(std::move(side));
}

}  // namespace seacliff
