// Random numbers by counter: the n-th draw of a seed depends on nothing else, so a request draws
// the same numbers in any company and after any interruption. Philox4x32-10 (Salmon et al.,
// Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace seacliff {

// What a draw is for; different uses of one seed must not share numbers.
enum class Draw : uint32_t { kToken = 0, kSeed = 1 };

constexpr std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                         std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

constexpr uint64_t RandomBits(uint64_t seed, uint64_t index, Draw draw) {
  const std::array<uint32_t, 4> bits =
      Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
              static_cast<uint32_t>(draw), 0},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{bits[1]} << 32 | bits[0];
}

// Uniform in [0, 1), 53 bits.
constexpr double RandomUniform(uint64_t seed, uint64_t index, Draw draw) {
  return static_cast<double>(RandomBits(seed, index, draw) >> 11) * 0x1p-53;
}

}  // namespace seacliff
