// experts for few tokens in one launch that reads every weight once, in the time that this takes.
//
// As many blocks as fit stay on the processors. A warp multiplies items of 16 rows of weights, for
// the tokens of a tile: in pass 0 eight rows of w1 and the same of w3 of a routed expert, in each
// further pass of w2. It copies the weights to shared memory itself, as far ahead as it has room,
// across items, passes and the waits between them. A pass begins with items of the shared expert,
// whose columns all warps of a block share. For one token there are fewer items than warps: those
// of pass 0 are then of a segment of the columns, and what they give is added up with the
// activation.
//
//   x to e4m3 | wait | pass 0: h of every slot | wait | h to e4m3 | wait | passes 1, 2, ...: y
//
// In one pass a block adds up what the experts give to its 16 rows of y, in the order of the
// experts, the shared one last, so y needs no further launch. All is added in ascending order, of
// MXFP4 segment by segment, of each in four sums of every fourth 64 columns, of FP8 over the warps,
// so that the bits of a token depend on the shapes alone.
#include <algorithm>

#include "base/check.h"
#include "kernels/experts/cuda_few.h"
#include "kernels/experts/cuda_few_items.cuh"

namespace seacliff::experts {
namespace {

// What a pass reads: x or h.
struct FewInput {
  const uint16_t* values;
  const float* scales;
  int cols;
};
__device__ inline FewInput InputOf(const FewPlan& p, bool down) {
  return down ? FewInput{p.hidden, p.hidden_scales, p.inter}
              : FewInput{p.x_values, p.x_scales, p.dim};
}

// ---- items of a routed expert: a warp's own ----

// The warp's next item: sink(slot, upper, lower) gets the products of rows lane / 4, for each slot
// in one lane of every four.
template <bool kOne, typename Sink>
__device__ inline void MultiplyTile(const FewPlan& p, FewCopies<kOne>& copies, bool down,
                                    int segment, const FewTile& tile, const int16_t* slot_token,
                                    const FewPlaces& places, Sink&& sink) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const FewInput in = InputOf(p, down);
  // The slots are few: 32 bits hold the places of their values. Columns without a slot take
  // another's x; nobody uses their sums.
  const auto place_of = [&](int slot) {
    const int at = tile.begin + min(slot, tile.count - 1);
    return static_cast<uint32_t>(down ? at : slot_token[at]) * static_cast<uint32_t>(in.cols);
  };
  // Columns of the product are for 1, 2, 4 or 8 slots.
  const int log = kOne ? 0 : tile.count > 4 ? 3 : tile.count > 2 ? 2 : tile.count - 1;
  const int column = lane / 4, own = (lane % 4 << log) / 4;
  const uint32_t first = place_of(own) / 128;
  FewX x;
  x.values =
      in.values + (place_of(column >> (3 - log)) + (column & (7 >> log)) * 32 + lane % 4 * 8);
  x.scales = in.scales + first;
  x.apart = static_cast<int>(place_of(own + 1) / 128 - first);
  int lines = in.cols / kLineColumns;
  if (kOne && !down) {
    const int begin = SegmentBegin(lines, p.segments, segment);
    x.values += begin * kLineColumns;
    x.scales += begin * (kLineColumns / 128);
    lines = SegmentBegin(lines, p.segments, segment + 1) - begin;
  }
  float v[4] = {};
  MultiplyMxfp4<kOne>(copies, log, lines / kStageLines, places, x, v);
  if ((lane % 4 << log) % 4 == 0 && own < tile.count) sink(tile.begin + own, v[0], v[2]);
  if (log == 3 && own + 1 < tile.count) sink(tile.begin + own + 1, v[1], v[3]);
}

// ---- items of the shared expert: all warps' ----

// The products of rows lane / 4 with up to 16 tokens from `begin` on, of which sink(token, upper,
// lower) gets each in one lane. `parts` [octets][warps][lanes] is free once all are back.
template <bool kOne, typename Sink>
__device__ inline void MultiplyShared(const FewPlan& p, const AllPointers& pointers,
                                      FewCopies<kOne>& copies, bool down, int unit, int begin,
                                      float4* parts, Sink&& sink) {
  const int warp = static_cast<int>(threadIdx.x / kWarp),
            lane = static_cast<int>(threadIdx.x % kWarp);
  constexpr int kMost = kOne ? 1 : kOctets;
  const FewInput in = InputOf(p, down);
  const int count = min(kSharedSlots, p.tokens - begin), octets = (count + 7) / 8;
  const int first = warp * Fp8LinesEach(in.cols);  // of the warp's lines
  FewX x[kMost];
#pragma unroll
  for (int o = 0; o < kMost; ++o) {
    const auto place_of = [&](int token) {
      const int row = begin + min(token, count - 1) + (down ? p.slots : 0);
      return static_cast<uint32_t>(row * in.cols + first * 128);
    };
    x[o].values = in.values + (place_of(8 * o + lane / 4) + lane % 4 * 8);
    const uint32_t own = place_of(8 * o + lane % 4 * 2) / 128;
    x[o].scales = in.scales + own;
    x[o].apart = static_cast<int>(place_of(8 * o + lane % 4 * 2 + 1) / 128 - own);
  }
  const Pointers& w = pointers.of[p.experts];
  const int at = unit * (down ? 16 : 8) / 128 * (in.cols / 128) + first;
  const uint8_t* const scales[2] = {w.scales[down ? 2 : 0] + at, w.scales[down ? 2 : 1] + at};
  float acc[kMost][4] = {};
  MultiplyFp8<kMost>(copies, Fp8Lines(in.cols), octets, scales, x, acc);
#pragma unroll
  for (int o = 0; o < kMost; ++o) {
    if (o >= octets) break;
    parts[(o * kFewWarps + warp) * kWarp + lane] =
        make_float4(acc[o][0], acc[o][1], acc[o][2], acc[o][3]);
  }
  __syncthreads();
  if (warp < octets) {
    float v[4] = {};
#pragma unroll 4
    for (int i = 0; i < kFewWarps; ++i) {
      const float4 part = parts[(warp * kFewWarps + i) * kWarp + lane];
      v[0] = __fadd_rn(v[0], part.x);
      v[1] = __fadd_rn(v[1], part.y);
      v[2] = __fadd_rn(v[2], part.z);
      v[3] = __fadd_rn(v[3], part.w);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = 8 * warp + lane % 4 * 2 + i;
      if (token < count) sink(begin + token, v[i], v[2 + i]);
    }
  }
  __syncthreads();
}

// A lane's four values of block `of` of the h of a slot whose products came in segments.
__device__ inline uint2 ActivateParts(const FewPlan& p, float weight, int slot, int of) {
  const float* from =
      p.parts + int64_t{slot} * p.segments * 2 * p.inter + of * 128 + threadIdx.x % kWarp * 4;
  float gate[4] = {}, up[4] = {};
#pragma unroll 4
  for (int s = 0; s < p.segments; ++s, from += 2 * p.inter) {
    const float4 g = __ldcg(reinterpret_cast<const float4*>(from));
    const float4 u = __ldcg(reinterpret_cast<const float4*>(from + p.inter));
    const float gs[4] = {g.x, g.y, g.z, g.w}, us[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      gate[i] = __fadd_rn(gate[i], gs[i]);
      up[i] = __fadd_rn(up[i], us[i]);
    }
  }
  float h[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) h[i] = Activate(gate[i], up[i], p.limit, weight);
  return make_uint2(Bf16Pair(h[0], h[1]), Bf16Pair(h[2], h[3]));
}

// ---- the kernel ----

// kOne: for one token.
template <bool kOne>
__global__ void __launch_bounds__(kFewThreads, 2)
    FewKernel(const __grid_constant__ FewPlan p, const __grid_constant__ AllPointers pointers) {
  // ---- shared memory ----
  extern __shared__ __align__(128) uint8_t few_shared[];
  const int tid = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.x / kWarp),
            lane = static_cast<int>(threadIdx.x % kWarp);
  const auto blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const FewShared layout = FewLayout(p.tokens, p.slots, p.experts);
  auto* parts = reinterpret_cast<float4*>(few_shared + layout.parts);
  auto* outputs = reinterpret_cast<uint16_t*>(few_shared + layout.outputs);  // [slots][16 rows]
  const auto output_of = [&](int slot) {
    return outputs + (slot < p.slots ? slot + p.tokens : slot - p.slots) * 16;
  };
  const FewSlots slots(p, layout, few_shared);
  slots.Clear(p);
  __syncthreads();

  // ---- load: the shared expert's weights at once, those of the others when they are picked ----
  FewCopies<kOne> copies(p, pointers, slots.tiles, few_shared,
                         reinterpret_cast<uint32_t*>(few_shared + layout.drawn) + warp * 4);
  copies.Fill(-1);
  WaitForEarlier();
  const int own = warp * blocks + block, x_blocks = p.tokens * (p.dim / 128);
  uint2 four = make_uint2(0, 0);
  if (own < x_blocks) four = LoadFour(p.x + static_cast<int64_t>(own) * 128);
  slots.Load(p);
  if (block == 0 && tid < 2) p.arrivals[tid] = 0;
#pragma unroll 1
  for (int i = own; i < x_blocks; i += blocks * kFewWarps) {
    const int64_t at = static_cast<int64_t>(i) * 128;
    if (i > own) four = LoadFour(p.x + at);
    Quantise(four, p.x_values + at, p.x_scales + i);
  }
  __syncthreads();
  if (tid == 0) ArriveAtAll(p.counters);
  kOne ? slots.GroupOne(p) : slots.Group(p);
  const int routed = slots.counts[0];
  copies.Fill(routed);
  const auto wait_for = [&](const uint32_t* counter) {
    if (tid == 0) WaitForAll(counter);
    __syncthreads();
  };
  wait_for(p.counters);

  const auto meet = [&](uint32_t* counter) {
    __syncthreads();
    if (tid == 0) ArriveAtAll(counter);
    wait_for(counter);
  };
  const FewPlaces places;
  const int first_unit = FirstOf(p.dim / 16, p.each[1], block),
            units = FirstOf(p.dim / 16, p.each[1], block + 1) - first_unit;
#pragma unroll 1
  for (int pass = 0; pass <= units; ++pass) {
    const bool down = pass > 0;
    const auto store = [&](int slot, int unit, float upper, float lower) {
      if (down) {
        uint16_t* out = output_of(slot) + lane / 4;
        out[0] = Bf16Bits(upper);
        out[8] = Bf16Bits(lower);
      } else {
        const float h = Activate(upper, lower, p.limit, slots.weight[slot]);
        p.hidden[static_cast<int64_t>(slot) * p.inter + unit * 8 + lane / 4] = Bf16Bits(h);
      }
    };
    const auto store_part = [&](int slot, int segment, int unit, float upper, float lower) {
      float* const to = p.parts + int64_t{slot * p.segments + segment} * 2 * p.inter + unit * 8;
      to[lane / 4] = upper;
      to[p.inter + lane / 4] = lower;
    };
    // ---- compute: the shared expert ----
    int unit = down ? first_unit + pass - 1 : FirstOf(p.inter / 8, p.each[0], block);
    const int end = down ? unit + 1 : FirstOf(p.inter / 8, p.each[0], block + 1);
#pragma unroll 1
    for (; unit < end && p.shared_tiles > 0; ++unit) {
#pragma unroll 1
      for (int i = 0; i < p.shared_tiles; ++i) {
        MultiplyShared<kOne>(p, pointers, copies, down, unit, i * kSharedSlots, parts,
                             [&](int token, float upper, float lower) {
                               store(p.slots + token, unit, upper, lower);
                             });
      }
    }
    // ---- the routed experts ----
#pragma unroll 1
    for (int turn = 0;; ++turn) {
      const uint32_t drawn_item = copies.Drawn(turn);
      const int n = down ? turn * kFewWarps + warp : FewCopies<kOne>::TileOf(drawn_item);
      if (n < 0 || n >= routed) break;
      const int of = copies.UnitOf(drawn_item), segment = copies.SegmentOf(drawn_item);
      MultiplyTile<kOne>(p, copies, down, segment, slots.tiles[n], slots.token, places,
                         [&](int slot, float upper, float lower) {
                           if (kOne && !down) {
                             store_part(slot, segment, of, upper, lower);
                           } else {
                             store(slot, of, upper, lower);
                           }
                         });
    }
    __syncthreads();
    if (!down) {
      // ---- h to e4m3 ----
      meet(p.arrivals);
      if (block == 0 && tid < 2) p.counters[tid] = 0;  // all are done with them
      const int h_blocks = p.inter / 128, used = slots.counts[1];
      const int rows = used + (p.shared_tiles > 0 ? p.tokens : 0);
#pragma unroll 1
      for (int i = own; i < rows * h_blocks; i += blocks * kFewWarps) {
        const int n = i / h_blocks;
        const int64_t at =
            static_cast<int64_t>(n < used ? n : n - used + p.slots) * h_blocks + i % h_blocks;
        uint16_t* values = p.hidden + at * 128;
        const uint2 four = kOne && n < used ? ActivateParts(p, slots.weight[n], n, i % h_blocks)
                                            : LoadFour(values);
        Quantise(four, values, p.hidden_scales + at);
      }
      meet(p.arrivals + 1);
      LetNextStart();
      continue;
    }
    // ---- store: y ----
#pragma unroll 1
    for (int i = tid; i < p.tokens * 16; i += kFewThreads) {
      const int token = i / 16, row = i % 16;
      float sum = 0;
      for (int n = 0; n < p.picks; ++n) {
        const int slot = slots.order[token * p.picks + n];
        if (slot >= 0) sum = __fadd_rn(sum, LowOf(output_of(slot)[row]));
      }
      if (p.shared_tiles > 0) sum = __fadd_rn(sum, LowOf(output_of(p.slots + token)[row]));
      Store(p.y + static_cast<int64_t>(token) * p.dim + (end - 1) * 16 + row, sum);
    }
    __syncthreads();
  }
}

// ---- host ----

// What a block may take of shared memory: half of a multiprocessor's, if that is more than the 99
// KB that every card has. A multiprocessor has what one block may take and a kilobyte that each
// block holds back.
constexpr int64_t kReservedShared = 1024;
int64_t MostShared(Context& k) {
  const int64_t half = (SharedLimit(k) + kReservedShared) / 2 - kReservedShared;
  return std::min(SharedLimit(k), std::max<int64_t>(half, 99 * 1024));
}

// As many blocks as all run at once, since they wait for each other; 0 after an error.
int BlocksTogether(Context& k, void (*kernel)(FewPlan, AllPointers), int64_t shared) {
  AllowShared(k, reinterpret_cast<const void*>(kernel), shared);
  int of_one = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, kFewThreads,
                                                static_cast<size_t>(shared));
  of_one = std::min(
      of_one, static_cast<int>((SharedLimit(k) + kReservedShared) / (shared + kReservedShared)));
  if (of_one == 0) k.Fail(Internal("CUDA: no room for a block of experts"));
  return of_one * Multiprocessors(k);
}

// Rows whose scales can be read 16 bytes at a time.
bool Streams(const ExpertWeights& w, WeightFormat format) {
  const auto streams = [format](const Matrix& m) {
    return m.format == format && m.cols % 512 == 0 &&
           (format == WeightFormat::kFp8 || reinterpret_cast<uintptr_t>(m.scales) % 16 == 0);
  };
  return streams(w.gate) && streams(w.up) && streams(w.down);
}

}  // namespace

bool FewTakes(Context& k, const ExpertsArgs& a) {
  const int64_t tokens = a.x.shape[0], slots = tokens * a.picks.shape[1];
  if (slots > kFewMostSlots) return false;
  const FewShared shared = FewLayout(static_cast<int>(tokens), static_cast<int>(slots),
                                     static_cast<int>(a.experts.size()));
  return shared.bytes <= MostShared(k) &&
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
  const bool one = tokens == 1 && slots <= experts;
  const int64_t segments = one ? CeilDiv(dim, kSegmentColumns) : 1;
  const int64_t parts_at = pieces.Take<float>(one ? slots * segments * 2 * inter : 0);
  const int64_t hidden_at = pieces.Take<uint16_t>(all_slots * inter);
  const int64_t hidden_scales_at = pieces.Take<float>(all_slots * inter / 128);
  const int64_t bytes = CudaWorkspace(tokens, picks, experts, dim, inter);
  SC_CHECK(pieces.bytes() <= bytes);
  auto* space = static_cast<char*>(k.device()->Workspace(bytes));
  if (space == nullptr) return;  // the device holds the error

  FewPlan p{CommonOf(a, kSharedSlots)};
  p.counters = k.device()->counters();
  p.arrivals = reinterpret_cast<uint32_t*>(space + arrivals_at);
  p.x_values = reinterpret_cast<uint16_t*>(space + x_at);
  p.x_scales = reinterpret_cast<float*>(space + x_scales_at);
  p.parts = reinterpret_cast<float*>(space + parts_at);
  p.segments = static_cast<int32_t>(segments);
  p.hidden = reinterpret_cast<uint16_t*>(space + hidden_at);
  p.hidden_scales = reinterpret_cast<float*>(space + hidden_scales_at);

  const int64_t shared = FewLayout(p.tokens, p.slots, p.experts).bytes;
  const auto kernel = one ? FewKernel<true> : FewKernel<false>;
  const int blocks = BlocksTogether(k, kernel, shared);
  if (blocks == 0) return;
  p.each[0] = static_cast<int32_t>(CeilDiv(inter / 8, blocks));
  p.each[1] = static_cast<int32_t>(CeilDiv(dim / 16, blocks));
  p.busy = p.shared_tiles > 0 ? static_cast<int32_t>(CeilDiv(inter / 8, p.each[0])) : 0;
  LaunchOverlapped(k, "experts", kernel, dim3(static_cast<uint32_t>(blocks)), kFewThreads, shared,
                   p, PointersOf(a));
}

}  // namespace seacliff::experts
