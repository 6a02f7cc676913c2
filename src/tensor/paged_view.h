// Paged cache memory of one layer and storage. A page covers 128 tokens: 128 window entries, 32
// ratio-4 entries, one ratio-128 entry. docs/formats.md has the bytes.
#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace seacliff {

inline constexpr int64_t kPageTokens = 128;

enum class EntryFormat : uint8_t {
  kKvFp8,     // head_dim - 64 e4m3, 64 bf16; then e8m0 scales of 64-wide groups, padded to 8
  kKvF32,     // head_dim f32 (exact numerics)
  kIndexFp4,  // index_dim / 2 bytes e2m1 pairs; then index_dim / 32 e8m0 scales
  kIndexF32,  // index_dim f32 (exact numerics)
};

// Bytes of one entry of `dim` values, the last 64 of which are bf16 for kKvFp8.
constexpr int64_t EntryBytes(EntryFormat format, int64_t dim) {
  switch (format) {
    case EntryFormat::kKvFp8: {
      const int64_t groups = (dim - 64) / 64;
      return (dim - 64) + 128 + (groups + 1 + 7) / 8 * 8;
    }
    case EntryFormat::kIndexFp4:
      return dim / 2 + dim / 32;
    case EntryFormat::kKvF32:
    case EntryFormat::kIndexF32:
      return dim * 4;
  }
  return 0;
}

struct PagedView {
  std::byte* data = nullptr;  // page p starts at p * page_bytes()
  EntryFormat format = EntryFormat::kKvF32;
  int64_t dim = 0;       // values of an entry
  int64_t page_len = 0;  // entries in a page
  int64_t pages = 0;

  explicit operator bool() const { return data != nullptr; }
  int64_t page_bytes() const { return page_len * EntryBytes(format, dim); }
  std::byte* page(int64_t p) const { return data + p * page_bytes(); }
};

}  // namespace seacliff
