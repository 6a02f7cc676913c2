// Pieces that the two mHC ops share, as plain loops for the reference rows (spec/model.md 2.3).
#pragma once

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

}  // namespace seacliff
