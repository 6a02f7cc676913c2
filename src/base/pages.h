// Memory by the page: anonymous memory of our own, and what the system can be asked to do with the
// pages of any mapping. Ranges need not begin or end at pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.h"

namespace seacliff {

// Bytes of memory that this process may use: the machine's, or less where a cgroup gives less.
int64_t HostMemory();

// Page-aligned anonymous memory, zero until written, in huge pages where the system gives them.
class PageMemory {
 public:
  // kExhausted if it is more than the whole machine has; `what` begins the message.
  static Result<PageMemory> Allocate(int64_t bytes, const char* what);

  // Addresses alone, which may be more than the machine has memory; they cannot be read or written.
  static Result<PageMemory> Reserve(int64_t bytes, const char* what);

  std::byte* data() const { return memory_.get(); }
  int64_t bytes() const { return memory_.get_deleter().bytes; }

 private:
  struct Unmap {
    Unmap() : bytes(0) {}
    explicit Unmap(int64_t size) : bytes(size) {}
    int64_t bytes;
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Unmap> memory_;
};

// Where in PageMemory something of `bytes` bytes may begin, at or after `offset`: at a line of the
// cache, and if it is large at a page, so that all of it can be given back.
int64_t AlignedOffset(int64_t offset, int64_t bytes);

// Reads every page once. False if the file behind them cannot give them (an I/O error, or it was
// truncated), where the kernel can tell; older kernels end the process then.
bool ReadPages(const void* data, int64_t bytes);

// Starts reading from the file behind, and does not wait.
void PrefetchPages(const void* data, int64_t bytes);

// Gives back the memory of what will not be read again: all pages that lie whole in the range. Of a
// mapped file, what this process holds; the system's cache may keep it.
void ReleasePages(const void* data, int64_t bytes);

}  // namespace seacliff
