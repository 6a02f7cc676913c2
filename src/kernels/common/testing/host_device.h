// A device that is host memory, for tests: copies are done at once, nothing can be recorded. Tests
// override what they look at.
#pragma once

#include <cstring>
#include <memory>
#include <utility>

#include "kernels/device.h"

namespace seacliff {

class HostDevice : public Device {
 public:
  explicit HostDevice(Gpu gpu = {}) : Device(std::move(gpu)) {}

  Buffer Allocate(int64_t bytes, const char*) override { return Buffer::Host(bytes); }
  void Upload(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void Download(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void Copy(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  Buffer AllocatePinned(int64_t bytes) override { return Buffer::Host(bytes); }
  void UploadLater(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void DownloadLater(void* to, const void* from, int64_t bytes) override { Copy(to, from, bytes); }
  void* Workspace(int64_t) override { return nullptr; }
  void* Pinned(int64_t) override { return nullptr; }
  int64_t workspace_moves() const override { return 0; }
  uint32_t* counters() const override { return nullptr; }
  std::unique_ptr<DeviceGraph> Record(const std::function<void()>&) override { return nullptr; }
  void Run(const DeviceGraph&) override {}
  double Time(const std::function<void()>&) override { return 0; }
  bool overlaps() const override { return false; }
  int64_t FreeBytes() override { return 0; }
  bool lost() const override { return false; }
  Status Synchronize() override { return TakeError(); }
  Status TakeError() override { return std::exchange(error, Status()); }
  void* stream() const override { return nullptr; }

  Status error;
};

}  // namespace seacliff
