// Owned memory of a memory space. Host memory is 64-byte aligned and zeroed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/check.h"
#include "tensor/view.h"

namespace seacliff {

enum class Space : uint8_t { kHost, kDevice };

class Buffer {
 public:
  Buffer() = default;
  static Buffer Host(int64_t bytes) {
    Buffer b;
    const auto rounded = static_cast<size_t>((bytes + 63) / 64 * 64);
    b.data_.reset(std::aligned_alloc(64, rounded == 0 ? 64 : rounded));
    SC_CHECK(b.data_ != nullptr);
    std::memset(b.data_.get(), 0, rounded);
    b.bytes_ = bytes;
    return b;
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
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  int64_t bytes_ = 0;
};

}  // namespace seacliff
