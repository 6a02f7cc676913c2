// Owned memory of a memory space. Host memory is 64-byte aligned and zeroed; device memory comes
// from kernels/device.h.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include "base/check.h"
#include "tensor/view.h"

namespace seacliff {

class Buffer {
 public:
  using Free = void (*)(void*);

  Buffer() = default;
  Buffer(void* data, int64_t bytes, Free free) : data_(data, free), bytes_(bytes) {}
  static Buffer Host(int64_t bytes) {
    const auto rounded = static_cast<size_t>((bytes + 63) / 64 * 64);
    void* data = std::aligned_alloc(64, rounded == 0 ? 64 : rounded);
    SC_CHECK(data != nullptr);
    std::memset(data, 0, rounded);
    return {data, bytes, std::free};
  }

  void* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  template <typename T, int N>
  View<T, N> As(std::array<int64_t, N> shape) const {
    View<T, N> v(static_cast<T*>(data()), shape);
    SC_CHECK(v.size() * static_cast<int64_t>(sizeof(T)) <= bytes_);
    return v;
  }

 private:
  std::unique_ptr<void, Free> data_{nullptr, std::free};
  int64_t bytes_ = 0;
};

// Gives zeroed memory of the space that a model lives in.
using Allocate = std::function<Buffer(int64_t bytes)>;

}  // namespace seacliff
