// NCCL, loaded at run time where it is installed: all-reduces of long messages between two GPUs of
// this process. (Of more ranks it adds up in an order of its own, and rounds on the way.)
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/context.h"
#include "tensor/view.h"

namespace seacliff {

class Nccl {
 public:
  // `library` is its file, "" for libnccl.so.2 where the loader looks and where Python packages put
  // it. An error says what is missing. Waits until the ranks have talked to each other once.
  static Result<std::unique_ptr<Nccl>> Make(std::span<Device* const> devices,
                                            const std::string& library);
  // Its version and file, if it is there.
  static Result<std::string> Find(const std::string& library);
  ~Nccl();
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  // In the stream's order. All ranks must come: nothing ends a wait but Abort.
  void AllReduce(Context& k, int32_t rank, Act<2> v);
  // From any thread; later calls do nothing.
  void Abort();

 private:
  struct Library;
  static Result<std::unique_ptr<Library>> Load(const std::string& file);
  struct Rank {
    std::mutex mutex;
    void* comm = nullptr;  // ncclComm_t; null after Abort
  };

  Nccl() = default;
  std::unique_ptr<Library> library_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace seacliff
