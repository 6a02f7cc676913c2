// cuda row of index_query: a warp takes a head, each lane its dim / 32 neighbouring values.
#include "kernels/common/cuda.cuh"
#include "kernels/index_query/op.h"
#include "kernels/index_query/rows.cuh"

namespace seacliff::index_query {
namespace {

using namespace cuda;  // NOLINT: the frame of every CUDA row

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;

// ---- types ----

struct Params {
  Bf16* q;
  const int32_t* positions;
  const float* frequencies;
  int32_t heads, splits;  // blocks of a token
};

// ---- compute ----

template <int kValues>
__global__ void __launch_bounds__(kThreads) RoundQueries(Params a) {
  constexpr int kDim = kValues * kWarp;
  const int64_t token = blockIdx.x / a.splits;
  const int split = static_cast<int>(blockIdx.x % a.splits);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  LetNextStart();
  const int rotated = lane * kValues - (kDim - kRotated);  // place among the rotated values
  float frequencies[kValues / 2] = {};
#pragma unroll
  for (int i = 0; i < kValues / 2; ++i) {
    if (rotated >= 0) frequencies[i] = a.frequencies[rotated / 2 + i];
  }
  WaitForEarlier();

  const int first = split * kWarps + warp;
  const auto row_of = [&](int head) {
    return a.q + (token * a.heads + head) * kDim + lane * kValues;
  };
  const int32_t position = a.positions[token];
  float v[kValues];
  if (first < a.heads) LoadValues<kValues>(row_of(first), v);
  float2 turns[kValues / 2];
  if (rotated >= 0) Turns<kValues>(position, frequencies, turns);

  for (int head = first; head < a.heads; head += a.splits * kWarps) {
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

template <int kValues>
void Run(Context& k, const IndexQueryArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1];
  // Few tokens: a warp a head. Many: the sines of a warp serve several heads.
  const int64_t splits =
      tokens < 64 ? CeilDiv(heads, kWarps) : CeilDiv(heads, static_cast<int64_t>(8) * kWarps);
  const Params params = {static_cast<Bf16*>(a.q.data), a.positions.data, a.frequencies.data,
                         static_cast<int32_t>(heads), static_cast<int32_t>(splits)};
  LaunchOverlapped(k, "index_query", RoundQueries<kValues>,
                   dim3(static_cast<uint32_t>(tokens * splits)), dim3(kThreads), 0, params);
}

}  // namespace

void Cuda(Context& k, const IndexQueryArgs& a) {
  switch (a.q.shape[2]) {
    case 64:
      return Run<2>(k, a);
    case 128:
      return Run<4>(k, a);
    default:
      return Run<8>(k, a);
  }
}

}  // namespace seacliff::index_query
