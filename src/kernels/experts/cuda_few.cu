// experts for few tokens in one launch that reads every weight once, in the time that this takes.
//
// As many blocks as fit stay on the processors. Each goes through rounds: in section 0 one of 8
// rows of w1 and the same of w3 of the shared expert, by all eight warps; in section 1 two of the
// routed experts, by two teams of four warps; in section 2, for 16 rows of w2 at a time, two routed
// experts a round and then the shared one. An expert's tokens come in tiles. The warps of a team
// share the columns. One more warp copies weights to shared memory for both teams, as far ahead as
// there is room, across rounds, sections and the waits between them: what the next section reads is
// on its way while all blocks wait for each other. A tenth warp adds up what the others have.
//
//   x to e4m3 | wait | sections 0, 1: h of every slot | wait | h to e4m3 | wait | section 2
//
// A block adds up what the experts give to its 16 rows of y, in the order of the experts, the
// shared one last, so y needs no further launch. All is added in ascending order within a warp's
// columns, then over the warps, so that the bits of a token depend on the shapes alone.
#include <algorithm>

#include "base/check.h"
#include "kernels/experts/cuda_few.h"
#include "kernels/experts/cuda_few_rounds.cuh"

namespace seacliff::experts {
namespace {

// ---- the warps that multiply ----

// A warp's part of a round, into `parts` [octets][warps][lanes].
template <int kOctets>
__device__ inline void MultiplyRound(const FewPlan& p, const AllPointers& pointers,
                                     const FewRound& r, const int16_t* slot_token, uint32_t spread,
                                     FewRing& ring, float (&acc)[kOctets][4]) {
  const int warp = static_cast<int>(threadIdx.x / kWarp),
            lane = static_cast<int>(threadIdx.x % kWarp);
  const bool second = warp >= kTeamWarps;
  const FewTile tile = second ? r.tile[1] : r.tile[0];
  if (tile.count == 0) return;
  const auto cols = static_cast<uint32_t>(r.down != 0 ? p.inter : p.dim);
  const auto lines = static_cast<int>(cols / (r.both ? 128 : 256));
  const int octets = (tile.count + 7) / 8, spread_log = r.Sparse(tile) ? 1 : 0;
  const uint32_t first = r.both ? warp * 128 : warp % kTeamWarps * 256;
  FewX x[kOctets];
#pragma unroll
  for (int o = 0; o < kOctets; ++o) {
    // Columns without a slot take another's x; nobody uses their sums. The slots are few: 32 bits
    // hold the places of their values.
    const auto place_of = [&](int column) {
      const int at = tile.begin + min(8 * o + (column >> spread_log), tile.count - 1);
      return static_cast<uint32_t>(r.down != 0 ? at : slot_token[at]) * cols + first;
    };
    x[o].values = (r.down != 0 ? p.hidden : p.x_values) + (place_of(lane / 4) + lane % 4 * 8);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      x[o].scales[i] =
          (r.down != 0 ? p.hidden_scales : p.x_scales) + place_of(lane % 4 * 2 + i) / 128;
    }
  }
  if (r.both) {
    const Pointers& w = pointers.of[tile.expert];
    const auto row = static_cast<uint32_t>(r.unit[0]) * (r.down != 0 ? 16 : 8);
    const uint32_t at = row / 128 * (cols / 128) + warp;
    const uint8_t* scales[2] = {w.scales[r.down * 2] + at, w.scales[r.down + 1] + at};
    MultiplyFp8(ring, lines, octets, scales, x, acc);
  } else if (spread_log == 1) {
    MultiplyMxfp4<true>(ring, lines, 1, FewPlaces(spread), x, acc);
  } else {
    MultiplyMxfp4<false>(ring, lines, octets, FewPlaces(spread), x, acc);
  }
}

// ---- the warp that adds up ----

// The sums of an octet over the warps of an item.
__device__ inline void SumParts(const float4* parts, int warps, float (&v)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
#pragma unroll
  for (float& s : v) s = 0;
#pragma unroll 4
  for (int w = 0; w < warps; ++w) {
    const float4 part = parts[w * kWarp + lane];
    v[0] = __fadd_rn(v[0], part.x);
    v[1] = __fadd_rn(v[1], part.y);
    v[2] = __fadd_rn(v[2], part.z);
    v[3] = __fadd_rn(v[3], part.w);
  }
}

// Of all warps' parts [octets][warps][lanes] of a round: h, or the sums [tokens][16] of y.
__device__ inline void AddUp(const FewPlan& p, const FewRound& r, const float4* parts,
                             const int16_t* slot_token, const float* slot_weight, float* sums) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (int team = 0; team < (r.both ? 1 : kTeams); ++team) {
    const FewTile tile = team == 0 ? r.tile[0] : r.tile[1];
    const int unit = team == 0 ? r.unit[0] : r.unit[1];
    for (int o = 0; 8 * o < tile.count; ++o) {
      float v[4];
      SumParts(parts + (o * kFewWarps + team * kTeamWarps) * kWarp, r.both ? kFewWarps : kTeamWarps,
               v);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int index = r.Sparse(tile) ? lane % 4 + i * 8 : 8 * o + lane % 4 * 2 + i;
        if (index >= tile.count) continue;
        const int at = tile.begin + index;
        if (r.down != 0) {
          float* to = sums + slot_token[at] * 16 + lane / 4;
          to[0] = __fadd_rn(to[0], RoundBf16(v[i]));
          to[8] = __fadd_rn(to[8], RoundBf16(v[2 + i]));
        } else {
          const float h = Activate(v[i], v[2 + i], p.limit, slot_weight[at]);
          p.hidden[static_cast<int64_t>(at) * p.inter + unit * 8 + lane / 4] = Bf16Bits(h);
        }
      }
    }
    __syncwarp();
  }
  if (!r.last) return;
  for (int i = lane; i < p.tokens * 16; i += kWarp) {
    Store(p.y + static_cast<int64_t>(i / 16) * p.dim + r.unit[0] * 16 + i % 16, sums[i]);
    sums[i] = 0;
  }
  __syncwarp();
}

// ---- the kernel ----

template <int kOctets>
__global__ void __launch_bounds__(kFewAllThreads, 2)
    FewKernel(const __grid_constant__ FewPlan p, const __grid_constant__ AllPointers pointers) {
  // ---- shared memory ----
  extern __shared__ __align__(128) uint8_t few_shared[];
  const int tid = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.x / kWarp);
  const FewShared layout = FewLayout(kOctets, p.tokens, p.slots, p.experts);
  auto& queue = *reinterpret_cast<FewQueue*>(few_shared);
  static_assert(sizeof(queue) <= kQueueBytes, "of shared memory");
  auto* parts = reinterpret_cast<float4*>(few_shared + layout.parts);  // [2][octets][warps][lanes]
  auto* sums = reinterpret_cast<float*>(few_shared + layout.sums);     // [tokens][16 rows]
  auto* slot_weight = reinterpret_cast<float*>(few_shared + layout.slot_weight);
  auto* tiles = reinterpret_cast<FewTile*>(few_shared + layout.tiles);
  auto* slot_token = reinterpret_cast<int16_t*>(few_shared + layout.slot_token);
  if (tid == 0) queue.Init();
  for (int i = tid; i < p.tokens * 16; i += kFewAllThreads) sums[i] = 0;
  __syncthreads();

  // ---- load: the shared expert's weights at once, those of the others when they are picked ----
  if (warp == kFetchWarp) {
    FewFetch(p, pointers, queue, tiles, few_shared + layout.stages, TileSlots(kOctets)).Run();
    return;
  }
  WaitForEarlier();
  const auto blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int own = warp * blocks + block, x_blocks = p.tokens * (p.dim / 128);
  int2 found = make_int2(0, 0);
  if (warp < kFewWarps) {
    uint2 four = make_uint2(0, 0);
    if (own < x_blocks) four = LoadFour(p.x + static_cast<int64_t>(own) * 128);
    if (block == 0 && tid < 2) p.arrivals[tid] = 0;
    found = Group(p, TileSlots(kOctets), few_shared + layout.parts, tiles, slot_token, slot_weight);
    if (tid == 0) {
      queue.routed_tiles = found.x;
      ArriveAt(AddressOf(&queue.grouped));
    }
    for (int i = own; i < x_blocks; i += blocks * kFewWarps) {
      const int64_t at = static_cast<int64_t>(i) * 128;
      if (i > own) four = LoadFour(p.x + at);
      Quantise(four, p.x_values + at, p.x_scales + i);
    }
  }
  // All but the warp that fetches, of all blocks.
  const auto meet = [&](uint32_t* counter) {
    SyncThreads<2, kFewThreads + kWarp>();
    if (tid == 0) {
      ArriveAtAll(counter);
      WaitForAll(counter);
    }
    SyncThreads<2, kFewThreads + kWarp>();
  };
  meet(p.counters);

  const uint32_t spread = AddressOf(few_shared + layout.spread);
  FewRing ring = queue.Ring(few_shared + layout.stages, warp < kTeamWarps ? 0 : 1);
  for (int turn = 0;; ++turn) {
    const FewRound r = queue.Take(turn);
    if (r.kind == kDone) break;
    if (r.kind == kMeet) {
      // ---- h is there: to e4m3 ----
      meet(p.arrivals);
      if (block == 0 && tid < 2) p.counters[tid] = 0;  // all are done with them
      const int rows = found.y + (p.shared_tiles > 0 ? p.tokens : 0), h_blocks = p.inter / 128;
      for (int i = own; warp < kFewWarps && i < rows * h_blocks; i += blocks * kFewWarps) {
        const int n = i / h_blocks;
        const int64_t item =
            static_cast<int64_t>(n < found.y ? n : n - found.y + p.slots) * h_blocks + i % h_blocks;
        uint16_t* values = p.hidden + item * 128;
        Quantise(LoadFour(values), values, p.hidden_scales + item);
      }
      meet(p.arrivals + 1);
      LetNextStart();
    }
    // ---- compute, store ----
    const int half = turn % 2, parity = turn / 2 % 2;
    float4* round_parts = parts + half * (kOctets * kFewWarps * kWarp);
    if (warp == kSumWarp) {
      WaitAt(AddressOf(&queue.parts_full[half]), parity);
      AddUp(p, r, round_parts, slot_token, slot_weight, sums);
      if (tid % kWarp == 0) ArriveAt(AddressOf(&queue.parts_empty[half]));
      continue;
    }
    float acc[kOctets][4] = {};
    MultiplyRound<kOctets>(p, pointers, r, slot_token, spread, ring, acc);
    WaitAt(AddressOf(&queue.parts_empty[half]), parity ^ 1);
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      round_parts[o * kFewThreads + tid] = make_float4(acc[o][0], acc[o][1], acc[o][2], acc[o][3]);
    }
    __syncwarp();
    if (tid % kWarp == 0) ArriveAt(AddressOf(&queue.parts_full[half]));
  }
  if (warp == 0 && queue.routed_tiles + p.shared_tiles == 0) {  // no section 2
    const int64_t values = static_cast<int64_t>(p.tokens) * p.dim;
    for (int64_t i = block * kWarp + tid; i < values; i += blocks * kWarp) Store(p.y + i, 0);
  }
}

// ---- host ----

// As many blocks as all run at once, which wait for each other.
template <typename... Params, typename... Args>
void LaunchTogether(Context& k, const char* op, void (*kernel)(Params...), int threads,
                    int64_t shared, Args... args) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(shared));
  int of_one = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, threads,
                                                static_cast<size_t>(shared));
  const auto blocks = static_cast<uint32_t>(of_one * Multiprocessors(k));
  if (blocks == 0) return k.Fail(Internal(std::string("CUDA: no room for a block of ") + op));
  LaunchOverlapped(k, op, kernel, dim3(blocks), static_cast<uint32_t>(threads), shared, args...);
}

// Rows whose scales can be read 16 bytes at a time.
bool Streams(const ExpertWeights& w, WeightFormat format) {
  const auto streams = [format](const Matrix& m) {
    return m.format == format && m.cols % 512 == 0 &&
           (format == WeightFormat::kFp8 || reinterpret_cast<uintptr_t>(m.scales) % 16 == 0);
  };
  return streams(w.gate) && streams(w.up) && streams(w.down);
}

int OctetsFor(int64_t tokens) { return tokens <= 8 ? 1 : 2; }

}  // namespace

bool FewTakes(const ExpertsArgs& a) {
  const int64_t tokens = a.x.shape[0], slots = tokens * a.picks.shape[1];
  if (slots > kFewMostSlots) return false;
  const int octets = OctetsFor(tokens);
  const FewShared shared = FewLayout(octets, static_cast<int>(tokens), static_cast<int>(slots),
                                     static_cast<int>(a.experts.size()));
  return shared.bytes <= kFewMostShared &&
         std::all_of(a.experts.begin(), a.experts.end(),
                     [](const ExpertWeights& w) { return Streams(w, WeightFormat::kMxfp4); }) &&
         (!a.shared.gate || Streams(a.shared, WeightFormat::kFp8));
}

void CudaFew(Context& k, const ExpertsArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1], picks = a.picks.shape[1];
  const auto experts = static_cast<int64_t>(a.experts.size());
  if (tokens == 0) return;
  const int64_t inter = a.experts.front().gate.rows, slots = tokens * picks,
                all_slots = slots + tokens;

  Pieces pieces;
  const int64_t arrivals_at = pieces.Take<uint32_t>(2);
  const int64_t x_at = pieces.Take<uint16_t>(tokens * dim);
  const int64_t x_scales_at = pieces.Take<float>(tokens * dim / 128);
  const int64_t hidden_at = pieces.Take<uint16_t>(all_slots * inter);
  const int64_t hidden_scales_at = pieces.Take<float>(all_slots * inter / 128);
  const int64_t bytes = CudaWorkspace(tokens, picks, experts, dim, inter);
  SC_CHECK(pieces.bytes() <= bytes);
  auto* space = static_cast<char*>(k.device()->Workspace(bytes));
  if (space == nullptr) return;  // the device holds the error

  const int octets = OctetsFor(tokens);
  FewPlan p{CommonOf(a, TileSlots(octets))};
  p.counters = k.device()->counters();
  p.arrivals = reinterpret_cast<uint32_t*>(space + arrivals_at);
  p.x_values = reinterpret_cast<uint16_t*>(space + x_at);
  p.x_scales = reinterpret_cast<float*>(space + x_scales_at);
  p.hidden = reinterpret_cast<uint16_t*>(space + hidden_at);
  p.hidden_scales = reinterpret_cast<float*>(space + hidden_scales_at);

  const int64_t shared = FewLayout(octets, p.tokens, p.slots, p.experts).bytes;
  LaunchTogether(k, "experts", octets == 1 ? FewKernel<1> : FewKernel<2>, kFewAllThreads, shared, p,
                 PointersOf(a));
}

}  // namespace seacliff::experts
