// Element types as they are stored in checkpoints and caches.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/numbers.h"

namespace seacliff {

enum class DType : uint8_t { kF32, kBf16, kE4m3, kE8m0, kI8, kU8, kI32, kI64 };

constexpr int64_t SizeOf(DType t) {
  switch (t) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kI64:
      return 8;
    case DType::kBf16:
      return 2;
    default:
      return 1;
  }
}

// The name the safetensors format uses.
constexpr std::string_view Name(DType t) {
  switch (t) {
    case DType::kF32:
      return "F32";
    case DType::kBf16:
      return "BF16";
    case DType::kE4m3:
      return "F8_E4M3";
    case DType::kE8m0:
      return "F8_E8M0";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
  }
  return "?";
}

template <typename T>
constexpr DType DTypeOf();
template <>
constexpr DType DTypeOf<float>() {
  return DType::kF32;
}
template <>
constexpr DType DTypeOf<Bf16>() {
  return DType::kBf16;
}
template <>
constexpr DType DTypeOf<E4m3>() {
  return DType::kE4m3;
}
template <>
constexpr DType DTypeOf<E8m0>() {
  return DType::kE8m0;
}
template <>
constexpr DType DTypeOf<uint8_t>() {
  return DType::kU8;
}
template <>
constexpr DType DTypeOf<int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType DTypeOf<int64_t>() {
  return DType::kI64;
}

}  // namespace seacliff
