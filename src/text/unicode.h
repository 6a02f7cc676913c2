// Character classes of Unicode 16.0, as far as the pretokenizer asks for them. The tables are
// generated (tools/unicode/generate.py): libraries of the system have other Unicode versions.
#pragma once

#include <cstdint>

namespace seacliff::unicode {

// Bits of a class byte. A code point has at most one of the first five (its general category).
inline constexpr uint8_t kLetter = 1;
inline constexpr uint8_t kMark = 2;
inline constexpr uint8_t kNumber = 4;
inline constexpr uint8_t kPunctuation = 8;
inline constexpr uint8_t kSymbol = 16;
inline constexpr uint8_t kSpace = 32;    // the property White_Space
inline constexpr uint8_t kLineEnd = 64;  // CR and LF
inline constexpr uint8_t kCjk = 128;     // U+4E00-9FA5, U+3040-309F, U+30A0-30FF

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

extern const uint8_t kBlockOf[];  // code point / 128 -> block
extern const uint8_t kClassOf[];  // block * 128 + code point % 128 -> class bits

// `code_point` must be at most kMaxCodePoint.
inline uint8_t ClassOf(uint32_t code_point) {
  return kClassOf[kBlockOf[code_point >> 7] * 128 + (code_point & 127)];
}

}  // namespace seacliff::unicode
