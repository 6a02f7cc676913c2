// Products of weights with the tokens of a decode step on the device, close to the time that it
// takes to read the weights: one launch for all matrices that meet the same tokens, whose weights
// are on their way before the activations are there (LaunchOverlapped).
//
// Sums are those of kernels/linear/op.h: blocks of 128 columns from zero on the tensor cores, each
// scaled by its power of two (exact), then added up in f32 in ascending order. A value's bits
// depend on its row and its token alone.
#pragma once

#include <span>

#include "kernels/common/cuda.cuh"

namespace seacliff::cuda {

// out[t, n] = sum_k x[t, k] * w[first_row + n, k] for n < rows.
struct FewPart {
  Matrix w;  // kBf16 or kFp8, row-major, as CanStream says
  int64_t first_row = 0, rows = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  bool f32 = false;       // out; else bf16
  bool quantise = false;  // x goes through e4m3 as in kernels/linear/op.h; of kFp8 only
};

inline constexpr int kFewMostParts = 16, kFewMostTokens = 32;

// Row t of part i's activations begins at x + i * x_step + t * x_stride.
struct FewProduct {
  std::span<const FewPart> parts;  // at most kFewMostParts, of equal columns
  const Bf16* x = nullptr;         // 16-byte aligned, and so are its rows
  int64_t x_stride = 0, x_step = 0;
  int64_t tokens = 0;  // at most kFewMostTokens
};
void MultiplyFew(Context& k, const char* op, const FewProduct& p);

}  // namespace seacliff::cuda
