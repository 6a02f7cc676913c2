// How the bytes of a made-up tensor are made, so that any part of it can be made anywhere: the 8
// bytes at place w (from byte 8 w on) are a function of the rule and w, but for expert ids, whose
// rows are made as one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace seacliff {

struct FillRule {
  enum class Kind : uint8_t {
    kRepeat,     // `word`
    kHash,       // the hash of the place
    kTable,      // values of `width` bytes, from `codes` by the hash's bits: lane i of the word by
                 // those from bit 8 i width on, as many as index the table
    kScales,     // each byte that of `word`, less one where the hash's byte is odd
    kExpertIds,  // rows of `picks` int64, each the hash of its own place modulo `experts`, or the
                 // next that its row does not have
  };
  Kind kind = Kind::kRepeat;
  uint64_t key = 0, word = 0;
  int32_t width = 0;
  int64_t picks = 0, experts = 0;
  std::shared_ptr<const std::vector<uint32_t>> codes;  // 256 or 4,096
};

}  // namespace seacliff
