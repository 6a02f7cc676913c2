// CUDA row of experts; cuda_few.cu has it for few tokens. Assignments of tokens to experts get
// slots, sorted by expert and then by token, and behind them come the shared expert's, one for each
// token. Then
//   1. group: the slots, and tiles of 8, 32 or 64 slots at most of one expert;
//   2. x through e4m3, once for each token;
//   3. gate and up: h of every slot; h through e4m3;
//   4. down: the output of every slot, bf16;
//   5. combine: each token's outputs in the order of their slots, f32.
// Grids depend on the numbers of tokens, picks and experts alone; tiles that stay empty do nothing.
// The workspace takes (picks + 1) * (dim + inter) * 2 bytes a token.
#include <algorithm>

#include "base/check.h"
#include "kernels/common/matmul.cuh"
#include "kernels/experts/cuda_common.cuh"
#include "kernels/experts/cuda_few.h"

namespace seacliff::experts {
namespace {

constexpr int kSmallThreads = 256;
constexpr int kSmallTokens = 8, kMiddleTokens = 32, kLargeTokens = 64;
constexpr int kCombineThreads = 256;

// `count` slots of one expert from `begin` on; count 0: nothing to do.
struct Tile {
  int32_t expert, begin, count, unused;
};

// Arguments of all kernels.
struct Plan : Common {
  int32_t tile_slots;  // most of a tile
  int32_t most_tiles;  // of routed experts; the shared expert's come before them in a grid
  bool routed_fp8, shared_fp8;
  // In the workspace:
  Pointers* pointers;   // [experts + 1]
  Tile* tiles;          // [most_tiles]
  int32_t* slot_token;  // [slots + tokens]
  float* slot_weight;   // [slots + tokens]
  int32_t* slot_of;     // [tokens, picks], -1 for what is no expert
  Bf16* x_values;       // [tokens, dim]
  Bf16* hidden;         // [slots + tokens, inter]
  Bf16* outputs;        // [slots + tokens, dim]
};

// ---- 1. group ----

__device__ inline int BlockSumInt(int v, int* scratch) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = v;
  __syncthreads();
  int sum = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) sum += scratch[w];
  return sum;
}

__device__ inline int PickOf(const Plan& p, int assignment) {
  const int64_t token = assignment / p.picks;
  return p.picked[token * p.picked_stride + assignment % p.picks];
}

// A block for each expert, and one more for the shared expert and what is left over.
__global__ void __launch_bounds__(1024) GroupKernel(Plan p, const AllPointers pointers) {
  // ---- shared memory ----
  extern __shared__ int counts[];  // of every expert
  __shared__ int scratch[kWarp];
  const int expert = static_cast<int>(blockIdx.x), threads = static_cast<int>(blockDim.x);
  const int tid = static_cast<int>(threadIdx.x), lane = tid % kWarp, warp = tid / kWarp;

  // ---- load: how many slots each expert has ----
  if (tid == 0) p.pointers[expert] = pointers.of[expert];
  for (int e = tid; e < p.experts; e += threads) counts[e] = 0;
  __syncthreads();
  for (int a = tid; a < p.slots; a += threads) {
    const int pick = PickOf(p, a);
    if (pick >= 0 && pick < p.experts) atomicAdd(&counts[pick], 1);
  }
  __syncthreads();

  // ---- compute: where this expert's begin ----
  int slots_before = 0, tiles_before = 0;
  for (int e = tid; e < expert; e += threads) {
    slots_before += counts[e];
    tiles_before += (counts[e] + p.tile_slots - 1) / p.tile_slots;
  }
  const int first = BlockSumInt(slots_before, scratch);
  const int first_tile = BlockSumInt(tiles_before, scratch);

  // ---- store ----
  if (expert == p.experts) {
    for (int t = tid; t < p.tokens; t += threads) {
      p.slot_token[p.slots + t] = t;
      p.slot_weight[p.slots + t] = 1.0f;
    }
    for (int i = first_tile + tid; i < p.most_tiles; i += threads) p.tiles[i] = {0, 0, 0, 0};
    for (int a = tid; a < p.slots; a += threads) {
      const int pick = PickOf(p, a);
      if (pick < 0 || pick >= p.experts) p.slot_of[a] = -1;
    }
    return;
  }
  const int count = counts[expert];
  for (int i = tid; i * p.tile_slots < count; i += threads) {
    p.tiles[first_tile + i] = {expert, first + i * p.tile_slots,
                               min(p.tile_slots, count - i * p.tile_slots), 0};
  }
  int found = 0;
  for (int begin = 0; begin < p.slots && found < count; begin += threads) {
    const int a = begin + tid;
    const bool mine = a < p.slots && PickOf(p, a) == expert;
    const uint32_t ballot = __ballot_sync(0xffffffffu, mine);
    __syncthreads();
    if (lane == 0) scratch[warp] = __popc(ballot);
    __syncthreads();
    int before = __popc(ballot & ((1u << lane) - 1)), total = 0;
    for (int w = 0; w < threads / kWarp; ++w) {
      if (w < warp) before += scratch[w];
      total += scratch[w];
    }
    if (mine) {
      const int slot = first + found + before;
      const int64_t token = a / p.picks;
      p.slot_token[slot] = static_cast<int32_t>(token);
      p.slot_weight[slot] = p.weights[token * p.weights_stride + a % p.picks];
      p.slot_of[a] = slot;
    }
    found += total;
  }
}

// The tile of a block: those of the shared expert come first in the grid.
__device__ inline Tile TileOf(const Plan& p, int index) {
  if (index >= p.shared_tiles) return p.tiles[index - p.shared_tiles];
  const int begin = index * p.tile_slots;
  return {p.experts, p.slots + begin, min(p.tile_slots, p.tokens - begin), 0};
}

// ---- 3. gate and up ----

// Tile 0 of the weights is of w1, tile 1 of the same rows of w3.
__device__ inline WeightTile<2> GateAndUp(const Plan& p, int expert, int row) {
  const Pointers& w = p.pointers[expert];
  return {{w.data[0], w.data[1]}, {w.scales[0], w.scales[1]}, {row, row}, p.inter};
}
__device__ inline TokenRows TokensOf(const Plan& p, const Tile& t) {
  return {p.x_values, p.dim, p.slot_token, t.begin, t.count};
}
__device__ inline bool IsFp8(const Plan& p, const Tile& t) {
  return t.expert == p.experts ? p.shared_fp8 : p.routed_fp8;
}

__global__ void __launch_bounds__(kSmallThreads, 2) GateUpSmall(Plan p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const Tile t = TileOf(p, static_cast<int>(blockIdx.y));
  if (t.count == 0) return;
  const int row = static_cast<int>(blockIdx.x) * 16;
  const WeightTile<2> weights = GateAndUp(p, t.expert, row);
  const auto sink = [&](int token, int r, const float(&sums)[2]) {
    if (row + r >= p.inter) return;
    const int64_t slot = t.begin + token;
    const float h = Activate(sums[0], sums[1], p.limit, p.slot_weight[slot]);
    Store(p.hidden + slot * p.inter + row + r, h);
  };
  auto* parts = reinterpret_cast<float*>(shared);
  if (IsFp8(p, t)) {
    MultiplySmall<Form::kFp8Shuffled, 2, kSmallTokens>(weights, TokensOf(p, t), p.dim, parts, sink);
  } else {
    MultiplySmall<Form::kMxfp4, 2, kSmallTokens>(weights, TokensOf(p, t), p.dim, parts, sink);
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kLargeThreads, kTokens == kLargeTokens ? 1 : 2)
    GateUpLarge(Plan p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const Tile t = TileOf(p, static_cast<int>(blockIdx.y));
  if (t.count == 0) return;
  const int row = (static_cast<int>(blockIdx.x) * (kLargeThreads / kWarp) +
                   static_cast<int>(threadIdx.x) / kWarp) *
                  16;
  const WeightTile<2> weights = GateAndUp(p, t.expert, row);
  const ResultRows out{p.hidden, p.inter, false, true};
  const auto sink = [&](int token, int r, const float(&values)[2][8]) {
    const int64_t slot = t.begin + token;
    const float weight = p.slot_weight[slot];
    float h[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) h[i] = Activate(values[0][i], values[1][i], p.limit, weight);
    out.Store8(slot, row + r, p.inter, h);
  };
  if (IsFp8(p, t)) {
    MultiplyLarge<Form::kFp8Shuffled, kTokens>(weights, TokensOf(p, t), p.dim, shared, sink);
  } else {
    MultiplyLarge<Form::kMxfp4, kTokens>(weights, TokensOf(p, t), p.dim, shared, sink);
  }
}

// ---- 4. down ----

__device__ inline WeightTile<2> Down(const Plan& p, int expert, int row) {
  const Pointers& w = p.pointers[expert];
  return {{w.data[2], w.data[2]}, {w.scales[2], w.scales[2]}, {row, row + 16}, p.dim};
}
__device__ inline TokenRows HiddenOf(const Plan& p, const Tile& t) {
  return {p.hidden, p.inter, nullptr, t.begin, t.count};
}

__global__ void __launch_bounds__(kSmallThreads, 2) DownSmall(Plan p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const Tile t = TileOf(p, static_cast<int>(blockIdx.y));
  if (t.count == 0) return;
  const int row = static_cast<int>(blockIdx.x) * 32;
  const WeightTile<2> weights = Down(p, t.expert, row);
  const auto sink = [&](int token, int r, const float(&sums)[2]) {
    const int64_t slot = t.begin + token;
    Bf16* out = p.outputs + slot * p.dim + row + r;  // dim is a multiple of 32
    Store(out, sums[0]);
    Store(out + 16, sums[1]);
  };
  auto* parts = reinterpret_cast<float*>(shared);
  if (IsFp8(p, t)) {
    MultiplySmall<Form::kFp8Shuffled, 2, kSmallTokens>(weights, HiddenOf(p, t), p.inter, parts,
                                                       sink);
  } else {
    MultiplySmall<Form::kMxfp4, 2, kSmallTokens>(weights, HiddenOf(p, t), p.inter, parts, sink);
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kLargeThreads, kTokens == kLargeTokens ? 1 : 2)
    DownLarge(Plan p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const Tile t = TileOf(p, static_cast<int>(blockIdx.y));
  if (t.count == 0) return;
  const int row = (static_cast<int>(blockIdx.x) * (kLargeThreads / kWarp) +
                   static_cast<int>(threadIdx.x) / kWarp) *
                  32;
  const WeightTile<2> weights = Down(p, t.expert, row);
  const ResultRows out{p.outputs, p.dim, false, true};
  const auto sink = [&](int token, int r, const float(&values)[2][8]) {
    out.Store8(t.begin + token, row + r, p.dim, values[0]);
    out.Store8(t.begin + token, row + 16 + r, p.dim, values[1]);
  };
  if (IsFp8(p, t)) {
    MultiplyLarge<Form::kFp8Shuffled, kTokens>(weights, HiddenOf(p, t), p.inter, shared, sink);
  } else {
    MultiplyLarge<Form::kMxfp4, kTokens>(weights, HiddenOf(p, t), p.inter, shared, sink);
  }
}

// ---- 5. combine: a block for each token ----

__global__ void __launch_bounds__(kCombineThreads) CombineKernel(Plan p) {
  extern __shared__ int order[];  // the token's slots, ascending
  const int64_t token = blockIdx.x;
  const int32_t* slots = p.slot_of + token * p.picks;
  const int picks = p.picks;
  for (int i = static_cast<int>(threadIdx.x); i < picks; i += kCombineThreads) {
    int rank = 0;
    for (int j = 0; j < picks; ++j) {
      rank += slots[j] < slots[i] || (slots[j] == slots[i] && j < i) ? 1 : 0;
    }
    order[rank] = slots[i];
  }
  __syncthreads();
  const bool shared_expert = p.shared_tiles > 0;
  for (int begin = static_cast<int>(threadIdx.x) * 8; begin < p.dim; begin += kCombineThreads * 8) {
    float sum[8] = {};
    for (int i = 0; i < picks + (shared_expert ? 1 : 0); ++i) {
      const int64_t slot = i < picks ? order[i] : p.slots + token;
      if (slot < 0) continue;
      const uint4 v = *reinterpret_cast<const uint4*>(p.outputs + slot * p.dim + begin);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        sum[2 * w] += LowOf(words[w]);
        sum[2 * w + 1] += HighOf(words[w]);
      }
    }
    Bf16* out = p.y + token * p.dim + begin;
#pragma unroll
    for (int i = 0; i < 8; ++i) Store(out + i, sum[i]);
  }
}

// ---- host ----

dim3 Grid(int64_t x, int64_t y) { return {static_cast<uint32_t>(x), static_cast<uint32_t>(y), 1}; }

void ProjectSmall(Context& k, const Plan& p, bool down) {
  const int64_t rows = down ? CeilDiv(p.dim, 32) : CeilDiv(p.inter, 16);
  Launch(k, "experts", down ? DownSmall : GateUpSmall, Grid(rows, p.shared_tiles + p.most_tiles),
         kSmallThreads, SmallShared(2, kSmallTokens), p);
}

template <int kTokens>
void ProjectLarge(Context& k, const Plan& p, bool down) {
  constexpr int kWarps = kLargeThreads / kWarp;
  const int64_t rows = down ? CeilDiv(p.dim, 32 * kWarps) : CeilDiv(p.inter, 16 * kWarps);
  Launch(k, "experts", down ? DownLarge<kTokens> : GateUpLarge<kTokens>,
         Grid(rows, p.shared_tiles + p.most_tiles), kLargeThreads, LargeShared(kTokens), p);
}

void Project(Context& k, const Plan& p, bool down) {
  switch (p.tile_slots) {
    case kSmallTokens:
      return ProjectSmall(k, p, down);
    case kMiddleTokens:
      return ProjectLarge<kMiddleTokens>(k, p, down);
    default:
      return ProjectLarge<kLargeTokens>(k, p, down);
  }
}

}  // namespace

void Cuda(Context& k, const ExpertsArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1], picks = a.picks.shape[1];
  const auto experts = static_cast<int64_t>(a.experts.size());
  if (tokens == 0) return;
  if (FewTakes(k, a)) return CudaFew(k, a);
  const ExpertWeights& first = a.experts.front();
  const int64_t inter = first.gate.rows, slots = tokens * picks, all_slots = slots + tokens;
  // From some ten slots an expert on, one tile of 32 takes less time than two small ones; it takes
  // 0.7 of the time of 64, which pays as long as most experts have one.
  const int64_t tile_slots = slots <= 10 * experts   ? kSmallTokens
                             : slots <= 30 * experts ? kMiddleTokens
                                                     : kLargeTokens;
  const int64_t most_tiles = std::min(slots, slots / tile_slots + std::min(experts, slots));

  Pieces pieces;
  const int64_t pointers_at = pieces.Take<Pointers>(experts + 1);
  const int64_t tiles_at = pieces.Take<Tile>(most_tiles);
  const int64_t token_at = pieces.Take<int32_t>(all_slots);
  const int64_t weight_at = pieces.Take<float>(all_slots);
  const int64_t slot_at = pieces.Take<int32_t>(slots);
  const int64_t x_at = pieces.Take<Bf16>(tokens * dim);
  const int64_t hidden_at = pieces.Take<Bf16>(all_slots * inter);
  const int64_t outputs_at = pieces.Take<Bf16>(all_slots * dim);
  const int64_t bytes = CudaWorkspace(tokens, picks, experts, dim, inter);
  SC_CHECK(pieces.bytes() <= bytes);
  auto* space = static_cast<char*>(k.device()->Workspace(bytes));
  if (space == nullptr) return;  // the device holds the error

  Plan p{CommonOf(a, tile_slots)};
  p.tile_slots = static_cast<int32_t>(tile_slots);
  p.most_tiles = static_cast<int32_t>(most_tiles);
  p.routed_fp8 = first.gate.format == WeightFormat::kFp8;
  p.shared_fp8 = a.shared.gate.format == WeightFormat::kFp8;
  p.pointers = reinterpret_cast<Pointers*>(space + pointers_at);
  p.tiles = reinterpret_cast<Tile*>(space + tiles_at);
  p.slot_token = reinterpret_cast<int32_t*>(space + token_at);
  p.slot_weight = reinterpret_cast<float*>(space + weight_at);
  p.slot_of = reinterpret_cast<int32_t*>(space + slot_at);
  p.x_values = reinterpret_cast<Bf16*>(space + x_at);
  p.hidden = reinterpret_cast<Bf16*>(space + hidden_at);
  p.outputs = reinterpret_cast<Bf16*>(space + outputs_at);

  const AllPointers pointers = PointersOf(a);
  const int group_threads = slots > 2048 ? 1024 : 256;
  Launch(k, "experts", GroupKernel, Grid(experts + 1, 1), group_threads, experts * 4, p, pointers);
  Prepare(k, "experts", p.x, tokens, dim, true, true, p.x_values);
  Project(k, p, false);
  Prepare(k, "experts", p.hidden, all_slots, inter, true, true, p.hidden);
  Project(k, p, true);
  Launch(k, "experts", CombineKernel, Grid(tokens, 1), kCombineThreads, picks * 4, p);
}

}  // namespace seacliff::experts
