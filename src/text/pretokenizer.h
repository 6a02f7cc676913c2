// Cuts text into the pieces that BPE works on, as the three patterns of the V4 tokenizer.json do
// (encoding.md 1.2, 1.3). Written by hand: no regex library has both its look-ahead and Unicode 16.
#pragma once

#include <cstddef>
#include <string_view>

namespace seacliff {

// A stretch of text without added tokens. Pieces are non-empty and together cover it.
class Pretokenizer {
 public:
  // `text` must be valid UTF-8 and outlive this.
  explicit Pretokenizer(std::string_view text) : text_(text) {}

  // The next piece; empty when there is no more.
  std::string_view Next();

  // The patterns this class implements, as they stand in a tokenizer.json (CR and LF escaped).
  static constexpr std::string_view kPatterns[3] = {
      R"(\p{N}{1,3})",
      "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
      R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace seacliff
