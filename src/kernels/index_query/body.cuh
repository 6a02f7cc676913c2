// What a warp of index_query does with heads (device code): each lane has dim / 32 neighbouring
// values.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/index_query/op.h"
#include "kernels/index_query/rows.cuh"

namespace seacliff::index_query {

using namespace cuda;  // NOLINT: the frame of every CUDA row

struct Params {
  Bf16* q;
  const int32_t* positions;
  const float* frequencies;
  int32_t heads;
};

inline Params ParamsOf(const IndexQueryArgs& a) {
  return {static_cast<Bf16*>(a.q.data), a.positions.data, a.frequencies.data,
          static_cast<int32_t>(a.q.shape[1])};
}

// A warp: heads first, first + step, ... of a token.
template <int kValues>
__device__ inline void RoundQueries(const Params& a, int64_t token, int first, int step) {
  constexpr int kDim = kValues * kWarp;
  const int lane = threadIdx.x % kWarp;

  LetNextStart();
  const int rotated = lane * kValues - (kDim - kRotated);  // place among the rotated values
  float frequencies[kValues / 2] = {};
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    if (rotated >= 0) frequencies[i] = a.frequencies[rotated / 2 + i];
  }
  WaitForEarlier();

  const auto row_of = [&](int head) {
    return a.q + (token * a.heads + head) * kDim + lane * kValues;
  };
  const int32_t position = a.positions[token];
  float v[kValues];
  if (first < a.heads) LoadValues<kValues>(row_of(first), v);
  float2 turns[kValues / 2];
  if (rotated >= 0) Turns<kValues>(position, frequencies, turns);

  for (int head = first; head < a.heads; head += step) {
    Bf16* row = row_of(head);
    if (head != first) LoadValues<kValues>(row, v);
    if (rotated >= 0) {
      RotateValues<kValues>(turns, v);
#pragma unroll
      for (float& x : v) x = RoundBf16(x);
    }
    HadamardWarp<kValues>(v);
#pragma unroll
    for (float& x : v) x = RoundBf16(x);
    const uint8_t code = E2m1WarpScale<kValues>(v);
    const float scale = FromE8m0(code), inverse = InverseE8m0(code);
#pragma unroll
    for (float& x : v) x = __fmul_rn(FromE2m1(E2m1Code(__fmul_rn(x, inverse))), scale);
    StoreValues<kValues>(row, v);
  }
}

}  // namespace seacliff::index_query
