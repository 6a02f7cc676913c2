// Shapes of a step on a device. Decode steps run as graphs, one for each shape; rounded up like
// this, the shapes are few.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace seacliff {

// Sequences of a decode step.
constexpr int64_t PaddedSeqs(int64_t seqs) {
  const int64_t step = seqs <= 8 ? 1 : seqs <= 64 ? 8 : 32;
  return (seqs + step - 1) / step * step;
}

// Pages in a row of a decode step's page tables.
constexpr int64_t PaddedWidth(int64_t pages) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(pages, 1))));
}

// Bytes of a step's integers (kernels/common/batch.h), each array at a multiple of 16 bytes.
constexpr int64_t StepNumberBytes(int64_t tokens, int64_t seqs, int64_t width, int64_t rows) {
  const auto array = [](int64_t count) { return (count + 3) / 4 * 16; };
  return 3 * array(tokens) + array(seqs + 1) + array(seqs) + 2 * array(seqs * width) + array(rows);
}

}  // namespace seacliff
