// Products with packed weights on units that multiply pairs of bf16: AVX-512 BF16 and AMX. Parts of
// matmul.h, which chooses; x86-64 only.
#pragma once

#include "kernels/common/matmul.h"

namespace seacliff {

#if defined(__x86_64__)
// As MultiplyTile, for inputs prepared for kAvx512Bf16 and kAmx.
void MultiplyTileAvx512Bf16(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows,
                            float* out);
void MultiplyTileAmx(const Matrix& w, int64_t tile, const MatMulInput& x, Segment rows, float* out);
#endif

}  // namespace seacliff
