// Views: pointers with shapes. They own nothing and are passed by value.
//
// View<T, N> has a fixed element type. Act<N> is a view of activations, which are bf16 in
// checkpoint numerics and f32 in exact numerics; the dtype of the activations is what selects the
// numerics of an op.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "base/check.h"
#include "tensor/dtype.h"

namespace seacliff {

template <typename T, int N>
struct View {
  T* data = nullptr;
  std::array<int64_t, N> shape{};
  std::array<int64_t, N> stride{};  // in elements

  View() = default;
  View(T* d, std::array<int64_t, N> s) : data(d), shape(s) {  // contiguous
    int64_t step = 1;
    for (int i = N - 1; i >= 0; --i) {
      stride[static_cast<size_t>(i)] = step;
      step *= s[static_cast<size_t>(i)];
    }
  }
  // View<T> converts to View<const T>.
  template <typename U>
  requires(std::is_same_v<const U, T> && !std::is_const_v<U>)
      View(const View<U, N>& v)  // NOLINT(google-explicit-constructor)
      : data(v.data), shape(v.shape), stride(v.stride) {}

  explicit operator bool() const { return data != nullptr; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }

  template <typename... I>
  T& operator()(I... index) const {
    static_assert(sizeof...(I) == N);
    return data[Offset(index...)];
  }
  // The view of one index of the first dimension.
  View<T, N - 1> operator[](int64_t i) const requires(N > 1) {
    View<T, N - 1> v;
    v.data = data + i * stride[0];
    for (size_t d = 1; d < N; ++d) {
      v.shape[d - 1] = shape[d];
      v.stride[d - 1] = stride[d];
    }
    return v;
  }

 private:
  template <typename... I>
  int64_t Offset(I... index) const {
    int64_t offset = 0;
    size_t d = 0;
    ((offset += static_cast<int64_t>(index) * stride[d++]), ...);
    return offset;
  }
};

// Activations [rows..., dim]: contiguous rows, bf16 or f32.
template <int N>
struct Act {
  void* data = nullptr;
  DType dtype = DType::kF32;
  std::array<int64_t, N> shape{};

  Act() = default;
  Act(void* d, DType t, std::array<int64_t, N> s) : data(d), dtype(t), shape(s) {}
  template <int M>
  Act<M> Reshape(std::array<int64_t, M> s) const {
    return {data, dtype, s};
  }

  explicit operator bool() const { return data != nullptr; }
  bool exact() const { return dtype == DType::kF32; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t s : shape) n *= s;
    return n;
  }
  // The first `rows` of the first dimension, from `begin` on.
  Act Rows(int64_t begin, int64_t rows) const {
    Act a = *this;
    a.shape[0] = rows;
    const int64_t row = shape[0] == 0 ? 0 : size() / shape[0];
    a.data = static_cast<char*>(data) + begin * row * SizeOf(dtype);
    return a;
  }

  // Element i of the flattened tensor; Store rounds to the dtype.
  float Load(int64_t i) const {
    return exact() ? static_cast<const float*>(data)[i]
                   : ToFloat(static_cast<const Bf16*>(data)[i]);
  }
  void Store(int64_t i, float v) const {
    if (exact())
      static_cast<float*>(data)[i] = v;
    else
      static_cast<Bf16*>(data)[i] = ToBf16(v);
  }
};

}  // namespace seacliff
