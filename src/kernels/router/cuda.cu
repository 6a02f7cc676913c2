// CUDA row of router. A decode step's tokens take one launch: FewKernel, whose last block chooses,
// or HashKernel, which reads the picked rows of the gate alone. Others take a product of linear,
// then a warp for each token's choice. All give a token the same bits: see common/matmul_tile.cuh
// for the order of the sums.
#include <cmath>

#include "kernels/common/matmul.cuh"
#include "kernels/router/op.h"

namespace seacliff::router {
namespace {

using namespace seacliff::cuda;  // NOLINT: the frame of every CUDA row

constexpr int kThreads = 128, kTokens = kThreads / kWarp;
// Of a block of FewKernel and HashKernel: its warps deal out the blocks of 128 columns.
constexpr int kFewThreads = 1024, kFewWarps = kFewThreads / kWarp;
constexpr int kOctet = 8;             // rows of the gate, and tokens, that such a block takes
constexpr int64_t kFewTokens = 64;    // at most in FewKernel
constexpr int64_t kHashTokens = 512;  // at most in HashKernel
constexpr int64_t kFewExperts = 512, kFewUnits = 2;

struct Choice {
  const float* values;  // [tokens, experts]: logits, or affinities
  int32_t tokens, experts, picks;
  const float* bias;
  const int64_t* table;
  const int32_t* ids;
  float route_scale;
  int32_t* picked;
  float* weights;
  float* margin;
};

struct Few {
  Choice choice;
  const Bf16 *x, *gate;
  int32_t dim;
  float* affinities;  // choice.values
  uint32_t* tickets;  // Device::counters; one for each octet of tokens
};

__device__ inline float Affinity(float logit) {
  return sqrtf(logit > 20 ? logit : log1pf(expf(logit)));
}

// ---- choosing: a warp for a token ----

// Numbers in the order of the floats, above 0.
__device__ inline uint32_t KeyOf(float v) {
  const uint32_t bits = __float_as_uint(v);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float OfKey(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// Writes what lane i's pick weighs.
__device__ inline void Weigh(const Choice& c, int64_t token, int pick, float affinity) {
  const int lane = threadIdx.x % kWarp;
  float sum = 0;
  for (int i = 0; i < c.picks; ++i) sum += __shfl_sync(0xffffffffu, affinity, i);
  if (lane >= c.picks) return;
  c.picked[token * c.picks + lane] = pick;
  c.weights[token * c.picks + lane] = sum > 0 ? affinity / sum * c.route_scale : 0;
}

// affinity_of(expert), bias: where they stand. kPerLane * 32 >= experts.
template <int kPerLane, typename AffinityOf>
__device__ inline void Choose(const Choice& c, const float* bias, int64_t token,
                              AffinityOf affinity_of) {
  const int lane = threadIdx.x % kWarp;
  if (c.table != nullptr) {
    int pick = 0;
    if (lane < c.picks) {
      pick = static_cast<int>(c.table[int64_t{c.ids[token]} * c.picks + lane]);
    }
    if (c.margin != nullptr && lane == 0) c.margin[token] = INFINITY;
    return Weigh(c, token, pick, affinity_of(pick));
  }

  uint32_t keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + i * kWarp;
    keys[i] = e < c.experts ? KeyOf(__fadd_rn(affinity_of(e), bias[e])) : 0;
  }
  const auto top = [&] {
    uint32_t best = 0;
#pragma unroll
    for (const uint32_t key : keys) best = max(best, key);
    return __reduce_max_sync(0xffffffffu, best);
  };
  int pick = 0;
  uint32_t last = 0;
  for (int round = 0; round < c.picks; ++round) {
    last = top();
    uint32_t expert = 0xffffffffu;  // the lowest of the best
#pragma unroll
    for (int i = kPerLane - 1; i >= 0; --i) {
      if (keys[i] == last) expert = static_cast<uint32_t>(lane + i * kWarp);
    }
    expert = __reduce_min_sync(0xffffffffu, expert);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (static_cast<uint32_t>(lane + i * kWarp) == expert) keys[i] = 0;
    }
    if (lane == round) pick = static_cast<int>(expert);
  }
  if (c.margin != nullptr) {
    const uint32_t next = top();
    if (lane == 0) {
      c.margin[token] = c.picks < c.experts ? OfKey(last) - OfKey(next) : INFINITY;
    }
  }
  Weigh(c, token, pick, affinity_of(pick));
}

template <int kPerLane>
__global__ void __launch_bounds__(kThreads) ChooseKernel(Choice c) {
  WaitForEarlier();
  LetNextStart();
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kTokens + threadIdx.x / kWarp;
  if (token >= c.tokens) return;  // whole warps, and no block-wide barrier follows
  Choose<kPerLane>(c, c.bias, token,
                   [&](int e) { return Affinity(c.values[token * c.experts + e]); });
}

// ---- few tokens ----

// A lane's columns of the blocks of 128 that its warp multiplies: of piece p of such a block 8 from
// 32 p + lane % 4 * 8 on.
template <int kUnits>
struct Pieces {
  uint4 v[kUnits][kPieces];
};

// A plain load, not of constants (.nc): those sink below the wait.
__device__ inline uint4 Load16(const Bf16* from) { return *reinterpret_cast<const uint4*>(from); }

// Warps that no block of columns is left for load the first ones.
template <int kUnits>
__device__ inline void LoadPieces(const Bf16* row, int dim, Pieces<kUnits>& to) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const int column = (warp + u * kFewWarps) * kBlockColumns;
      to.v[u][p] = Load16(row + (column < dim ? column : 0) + 32 * p + lane % 4 * 8);
    }
  }
}

// Eight rows times eight tokens, of which a lane has row and token lane / 4. Thread i < 64 gets row
// i / 8 times token i % 8. All threads of a block; `parts` may be used again after it.
template <int kUnits>
__device__ inline float MultiplyOctets(const Pieces<kUnits>& rows, const Pieces<kUnits>& x, int dim,
                                       float (&parts)[kUnits * kFewWarps][kOctet * kOctet]) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, blocks = dim / kBlockColumns;
  __syncwarp();  // keeps the compiler from loading each piece when its turn comes
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    if (warp + u * kFewWarps >= blocks) break;
    float acc[4] = {};  // its second half is of rows that there are not
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const uint4 w = rows.v[u][p], b = x.v[u][p];
      MmaBf16(acc, {w.x, 0u, w.y, 0u}, {b.x, b.y});
      MmaBf16(acc, {w.z, 0u, w.w, 0u}, {b.z, b.w});
    }
    *reinterpret_cast<float2*>(&parts[warp + u * kFewWarps][2 * lane]) =
        make_float2(acc[0], acc[1]);
  }
  __syncthreads();
  float sum = 0;
  if (threadIdx.x < kOctet * kOctet) {
#pragma unroll 8
    for (int b = 0; b < blocks; ++b) sum = __fadd_rn(sum, parts[b][threadIdx.x]);
  }
  __syncthreads();
  return sum;
}

// A block takes eight experts and eight tokens; the last one of these tokens chooses.
template <int kUnits, int kPerLane>
__global__ void __launch_bounds__(kFewThreads) FewKernel(const Few p) {
  alignas(16) __shared__ float parts[kUnits * kFewWarps][kOctet * kOctet];
  __shared__ float bias[kPerLane * kWarp];

  LetNextStart();
  const Choice& c = p.choice;
  const int tid = threadIdx.x, lane = tid % kWarp, warp = tid / kWarp;
  const int first = blockIdx.y * kOctet, first_expert = blockIdx.x * kOctet;

  // ---- load: the gate and the bias before what was launched earlier is done ----
  const Bf16* row = p.gate + int64_t{min(first_expert + lane / 4, c.experts - 1)} * p.dim;
  Pieces<kUnits> rows, x;
  LoadPieces(row, p.dim, rows);
  const float own_bias = tid < c.experts ? c.bias[tid] : 0;
  WaitForEarlier();
  LoadPieces(p.x + int64_t{min(first + lane / 4, c.tokens - 1)} * p.dim, p.dim, x);
  if (tid < kPerLane * kWarp) bias[tid] = own_bias;

  // ---- compute and store ----
  const float logit = MultiplyOctets(rows, x, p.dim, parts);
  const int token = first + tid % kOctet, expert = first_expert + tid / kOctet;
  if (tid < kOctet * kOctet && token < c.tokens && expert < c.experts) {
    p.affinities[int64_t{token} * c.experts + expert] = Affinity(logit);
  }
  if (!LastOf(p.tickets + blockIdx.y, gridDim.x) || warp >= kOctet || first + warp >= c.tokens)
    return;
  const float* affinities = c.values + int64_t{first + warp} * c.experts;
  Choose<kPerLane>(c, bias, first + warp, [&](int e) { return __ldcg(affinities + e); });
}

// A block takes a token of a hash layer, eight picks at a time.
template <int kUnits>
__global__ void __launch_bounds__(kFewThreads) HashKernel(const Few p) {
  alignas(16) __shared__ float parts[kUnits * kFewWarps][kOctet * kOctet];
  __shared__ float affinities[kWarp];

  LetNextStart();
  const Choice& c = p.choice;
  const int64_t token = blockIdx.x;
  const int tid = threadIdx.x, lane = tid % kWarp;
  WaitForEarlier();
  const int64_t* table = c.table + int64_t{c.ids[token]} * c.picks;
  Pieces<kUnits> rows, x;
  LoadPieces(p.x + token * p.dim, p.dim, x);  // eight times the same token
  for (int first = 0; first < c.picks; first += kOctet) {
    LoadPieces(p.gate + table[min(first + lane / 4, c.picks - 1)] * p.dim, p.dim, rows);
    const float logit = MultiplyOctets(rows, x, p.dim, parts);
    if (tid < kOctet * kOctet && tid % kOctet == 0) {
      affinities[first + tid / kOctet] = Affinity(logit);
    }
  }
  __syncthreads();
  if (tid >= kWarp) return;
  if (c.margin != nullptr && lane == 0) c.margin[token] = INFINITY;
  const int pick = lane < c.picks ? static_cast<int>(table[lane]) : 0;
  Weigh(c, token, pick, lane < c.picks ? affinities[lane] : 0);
}

bool TakesFew(const RouterArgs& a) {
  const int64_t tokens = a.x.shape[0];
  return a.gate.format == WeightFormat::kBf16 && CanStream(a.gate) && Aligned16(a.x.data) &&
         a.gate.cols % kBlockColumns == 0 && a.gate.cols <= kFewUnits * kFewWarps * kBlockColumns &&
         a.gate.rows <= kFewExperts && tokens <= (a.table ? kHashTokens : kFewTokens);
}

void LaunchFew(Context& k, const RouterArgs& a, const Choice& c, float* affinities) {
  Few p;
  p.choice = c;
  p.x = static_cast<const Bf16*>(a.x.data);
  p.gate = static_cast<const Bf16*>(a.gate.data);
  p.dim = static_cast<int32_t>(a.gate.cols);
  p.affinities = affinities;
  p.tickets = k.device()->counters();
  const bool one = a.gate.cols <= kFewWarps * kBlockColumns;
  const auto tokens = static_cast<uint32_t>(c.tokens);
  if (a.table) {
    return LaunchOverlapped(k, "router", one ? HashKernel<1> : HashKernel<2>, dim3(tokens),
                            kFewThreads, 0, p);
  }
  const dim3 grid(static_cast<uint32_t>(CeilDiv(c.experts, kOctet)),
                  static_cast<uint32_t>(CeilDiv(tokens, kOctet)));
  void (*const kernels[][2])(Few) = {{FewKernel<1, 8>, FewKernel<1, 16>},
                                     {FewKernel<2, 8>, FewKernel<2, 16>}};
  LaunchOverlapped(k, "router", kernels[one ? 0 : 1][c.experts <= 8 * kWarp ? 0 : 1], grid,
                   kFewThreads, 0, p);
}

}  // namespace

void Cuda(Context& k, const RouterArgs& a) {
  const int64_t tokens = a.x.shape[0], experts = a.gate.rows;
  if (tokens == 0) return;
  auto* values = static_cast<float*>(k.device()->Workspace(CudaWorkspace(tokens, experts)));
  if (values == nullptr) return;  // the device holds the error
  Choice c;
  c.values = values;
  c.tokens = static_cast<int32_t>(tokens);
  c.experts = static_cast<int32_t>(experts);
  c.picks = static_cast<int32_t>(a.picks.shape[1]);
  c.bias = a.bias.data;
  c.table = a.table.data;
  c.ids = a.ids.data;
  c.route_scale = a.route_scale;
  c.picked = a.picks.data;
  c.weights = a.weights.data;
  c.margin = a.margin.data;
  if (TakesFew(a)) return LaunchFew(k, a, c, values);

  Product p;
  p.w = a.gate;
  p.x = static_cast<const Bf16*>(a.x.data);
  p.x_stride = a.gate.cols;
  p.tokens = tokens;
  p.out = values;
  p.out_stride = experts;
  p.f32 = true;
  Multiply(k, "router", p);  // a gate that is not kMxfp4 leaves the workspace alone
  const dim3 grid(static_cast<uint32_t>(CeilDiv(tokens, kTokens)));
  const auto kernel = experts <= 256   ? ChooseKernel<8>
                      : experts <= 512 ? ChooseKernel<16>
                                       : ChooseKernel<64>;
  LaunchOverlapped(k, "router", kernel, grid, kThreads, 0, c);
}

}  // namespace seacliff::router
