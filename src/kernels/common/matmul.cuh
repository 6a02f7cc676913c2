// Products of weights with bf16 activations on the device, as the ops' CUDA rows call them. Which
// kernel runs is chosen from the shapes; all give the same bits (see matmul_tile.cuh), but for the
// plain one that takes what the others cannot.
#pragma once

#include "kernels/common/matmul_tile.cuh"

namespace seacliff::cuda {

// out[t, g, n] = sum_k x[t, g, k] * w[g * rows + n, k] for `groups` matrices one after the other.
struct Product {
  Matrix w;  // row-major, all groups
  int64_t groups = 1;
  const Bf16* x = nullptr;
  int64_t x_stride = 0, x_step = 0;  // of a token, of a group
  int64_t tokens = 0;
  void* out = nullptr;
  int64_t out_stride = 0, out_step = 0;
  bool f32 = false;  // out; else bf16
  // x goes through e4m3 as in kernels/linear/op.h; it is then contiguous, [tokens, groups, cols].
  bool quantise = false;
};

// Uses the workspace if x is quantised or w is kMxfp4.
void Multiply(Context& k, const char* op, const Product& p);

// Whether weights of this format and width can be read 16 bytes at a time from `data` on.
inline bool CanStream(const Matrix& w) {
  const int64_t step = w.format == WeightFormat::kBf16  ? 8
                       : w.format == WeightFormat::kFp8 ? 16
                                                        : 32;
  return w.format != WeightFormat::kF32 && w.layout == WeightLayout::kRowMajor &&
         w.cols % step == 0 && Aligned16(w.data);
}

// x [tokens, cols] to bf16: through e4m3 with a scale for each 128 columns if `quantise` is set
// (values times their scale are exact in bf16), and with each eight values in the order 0 4 1 5 2 6
// 3 7 if `shuffle` is set, for which cols % 8 == 0 and both pointers are 16-byte aligned. out may
// be x.
void Prepare(Context& k, const char* op, const Bf16* x, int64_t tokens, int64_t cols, bool quantise,
             bool shuffle, Bf16* out);

}  // namespace seacliff::cuda
