// Pieces that the two mHC ops share, as plain loops for the reference rows (spec/model.md 2.3).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/mhc_boundary/op.h"

namespace seacliff {

// streams[t] <- post * y + C^T streams, with the mix of the boundary before.
void MhcPost(const Act<2>& y, const Act<3>& streams, const View<const float, 2>& mix, int64_t t);

// m = (fn X) * rsqrt(mean(X^2) + eps) of one token; fn as decoded rows [rows, S * dim].
void MhcMix(const Act<3>& streams, const std::vector<float>& fn, int64_t rows, double eps,
            int64_t t, float* m);

// out[i] = sum_j weight_j * streams[t, j, i], not rounded.
void MhcCollapse(const Act<3>& streams, const float* weight, int64_t t, float* out);

// All rows of fn as f32.
std::vector<float> DecodeAll(const Matrix& m);

float Sigmoid(float x);

// How the CUDA rows of both cut a sum over the columns of fn: 32 of each stream are a piece, 8
// pieces a group; more tokens than these are summed by groups.
inline constexpr int kMhcPiece = 32, kMhcGroup = 8;
inline constexpr int64_t kMhcFewTokens = 512;
// Bytes of workspace that they ask for with `rows` rows of fn; more of anything asks for no less
// (model/memory_plan.h).
constexpr int64_t MhcCudaWorkspace(int64_t tokens, int64_t dim, int64_t rows) {
  const int64_t pieces = dim / kMhcPiece, groups = (pieces + kMhcGroup - 1) / kMhcGroup;
  const int64_t part_bytes = ((rows + 7) / 8 * 8 + 8) * 4;
  return std::max(std::min(tokens, kMhcFewTokens) * pieces, tokens * groups) * part_bytes;
}

}  // namespace seacliff
