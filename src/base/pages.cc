// mmap and madvise.
#include "base/pages.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

namespace seacliff {
namespace {

uintptr_t PageSize() { return static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)); }

// All pages that the range touches.
struct Touched {
  Touched(const void* data, int64_t bytes)
      : begin(reinterpret_cast<uintptr_t>(data) / PageSize() * PageSize()),
        end(reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) {}
  int Advise(int advice) const {
    return madvise(reinterpret_cast<void*>(begin), end - begin, advice);
  }
  uintptr_t begin, end;
};

}  // namespace

int64_t HostMemory() {
  const int64_t all = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream file("/sys/fs/cgroup/memory.max");  // "8589934592", "max"
  int64_t most = 0;
  return file >> most && most > 0 ? std::min(all, most) : all;
}

void PageMemory::Unmap::operator()(std::byte* data) const {
  munmap(data, static_cast<size_t>(bytes));
}

Result<PageMemory> PageMemory::Allocate(int64_t bytes, const char* what) {
  if (bytes == 0) return PageMemory();
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  void* data = MAP_FAILED;
  if (bytes <= machine) {
    data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (data == MAP_FAILED) {
    return Exhausted(fmt::format("{} take {:.1f} GB of the machine's {:.1f} GB of memory", what,
                                 static_cast<double>(bytes) * 1e-9,
                                 static_cast<double>(machine) * 1e-9));
  }
  madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // fewer page walks on every read
  PageMemory memory;
  memory.memory_ = {static_cast<std::byte*>(data), Unmap(bytes)};
  return memory;
}

Result<PageMemory> PageMemory::Reserve(int64_t bytes, const char* what) {
  if (bytes == 0) return PageMemory();
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Exhausted(fmt::format("{} take {:.1f} GB, for which there are no addresses", what,
                                 static_cast<double>(bytes) * 1e-9));
  }
  PageMemory memory;
  memory.memory_ = {static_cast<std::byte*>(data), Unmap(bytes)};
  return memory;
}

int64_t AlignedOffset(int64_t offset, int64_t bytes) {
  constexpr int64_t kLine = 64;
  const auto page = static_cast<int64_t>(PageSize());
  const int64_t unit = bytes >= page ? page : kLine;
  return (offset + unit - 1) / unit * unit;
}

bool ReadPages(const void* data, int64_t bytes) {
  const Touched pages(data, bytes);
  pages.Advise(MADV_WILLNEED);  // these pages in one go; faults would read others around them too
#ifdef MADV_POPULATE_READ
  if (pages.Advise(MADV_POPULATE_READ) == 0) return true;
  if (errno == EFAULT) return false;
#endif
  for (uintptr_t at = pages.begin; at < pages.end; at += PageSize()) {
    static_cast<void>(*reinterpret_cast<const volatile std::byte*>(at));
  }
  return true;
}

void PrefetchPages(const void* data, int64_t bytes) { Touched(data, bytes).Advise(MADV_WILLNEED); }

void ReleasePages(const void* data, int64_t bytes) {
  const uintptr_t page = PageSize();
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + page - 1) / page * page;
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes)) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace seacliff
