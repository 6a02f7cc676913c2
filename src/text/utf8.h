// UTF-8 by hand: decoding of valid text, and what to do with bytes that are not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace seacliff::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Kind : uint8_t {
  kValid,       // one character
  kInvalid,     // a maximal subpart: the longest start of a character that goes no further
  kIncomplete,  // as kInvalid, but only because the text ends
};

struct Sequence {
  Kind kind;
  int length;  // bytes, 1 to 4
};

// The sequence at the start of `text`, which must not be empty.
Sequence First(std::string_view text);

// The code point at `at` and its length. Only for text known to be valid.
inline uint32_t DecodeValid(const char* at, int* length) {
  const auto byte = [at](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(at[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    *length = 1;
    return lead;
  }
  if (lead < 0xE0) {
    *length = 2;
    return (lead & 0x1F) << 6 | (byte(1) & 0x3F);
  }
  if (lead < 0xF0) {
    *length = 3;
    return (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  }
  *length = 4;
  return (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
}

bool IsValid(std::string_view text);

// `text` with U+FFFD for each maximal subpart that is not a character.
std::string ReplaceInvalid(std::string_view text);

// Length of `text` without an incomplete character at its end (which has at most 3 bytes).
size_t CompleteLength(std::string_view text);

void AppendCodePoint(uint32_t code_point, std::string* out);

}  // namespace seacliff::utf8
