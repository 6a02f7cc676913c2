// Rounds of the CUDA path of experts for few tokens (cuda_few.cu): which slots belong to whom, what
// a block does in which order, and the warp that fetches the weights for it. Device code, but for
// the layout of shared memory.
#pragma once

#include <cstring>

#include "kernels/experts/cuda_few.cuh"

namespace seacliff::experts {
namespace {

constexpr int kTeams = 2, kFewWarps = kTeams * kTeamWarps;
constexpr int kFewThreads = kFewWarps * kWarp;
// The warp that fetches, and the one that adds up.
constexpr int kFetchWarp = kFewWarps, kSumWarp = kFewWarps + 1;
constexpr int kFewAllThreads = kFewThreads + 2 * kWarp;
constexpr int kQueue = 4;  // rounds that the fetching warp may be ahead
constexpr int kFewMostShared = 99 * 1024 - 128, kFewMostSlots = 2048;

// Of a kernel whose tiles have up to 8 * octets slots.
__host__ __device__ constexpr int TileSlots(int octets) { return 8 * octets; }

// Slots of one expert, whose number is `experts` for the shared one.
struct alignas(8) FewTile {
  int16_t expert, count;
  int32_t begin;
};

struct FewPlan : Common {
  uint32_t* counters;  // [2] of Device::counters
  // In the workspace. Values are e4m3 as f16, each eight in the order 0 4 1 5 2 6 3 7.
  uint32_t* arrivals;  // [2]
  uint16_t* x_values;  // [tokens, dim]
  float* x_scales;     // [tokens, dim / 128]
  uint16_t* hidden;    // [slots + tokens, inter], bf16 at first
  float* hidden_scales;
};

constexpr int kQueueBytes = 512;
// Where things stand in shared memory, behind the queue.
struct FewShared {
  int32_t stages, spread, parts, sums, tiles, slot_weight, slot_token, bytes;
};
__host__ __device__ inline FewShared FewLayout(int octets, int tokens, int slots, int experts) {
  const int most_tiles = slots / TileSlots(octets) + (slots < experts ? slots : experts);
  FewShared s;
  s.stages = kQueueBytes;
  s.spread = s.stages + kTeams * kStages * kStageBytes;
  s.parts = s.spread + kFewWarps * kWarp * 16;
  s.sums = s.parts + 2 * octets * kFewWarps * kWarp * 16;
  s.tiles = s.sums + tokens * 16 * 4;
  s.slot_weight = s.tiles + most_tiles * static_cast<int>(sizeof(FewTile));
  s.slot_token = s.slot_weight + (slots + tokens) * 4;
  s.bytes = s.slot_token + (slots + tokens) * 2;
  return s;
}

// ---- which slots belong to whom ----

// Fills tiles, slot_token and slot_weight and returns the numbers of tiles and of slots in use. The
// slots of an expert follow one another, in the order of tokens; those of the shared expert stand
// behind p.slots. `scratch` takes 6 bytes a slot.
__device__ inline int2 Group(const FewPlan& p, int tile_slots, uint8_t* scratch, FewTile* tiles,
                             int16_t* slot_token, float* slot_weight) {
  __shared__ int totals[kFewWarps];
  const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp;
  const int padded = (p.slots + 7) / 8 * 8;
  auto* picks = reinterpret_cast<int16_t*>(scratch);
  auto* weights = reinterpret_cast<float*>(scratch + padded * 2);
  for (int i = tid; i < padded; i += kFewThreads) {
    int pick = -1;
    if (i < p.slots) {
      const int token = i / p.picks, n = i - token * p.picks;
      pick = p.picked[token * p.picked_stride + n];
      weights[i] = p.weights[token * p.weights_stride + n];
      if (pick >= p.experts) pick = -1;
    }
    picks[i] = static_cast<int16_t>(pick);
  }
  for (int i = tid; i < p.tokens; i += kFewThreads) {
    slot_token[p.slots + i] = static_cast<int16_t>(i);
    slot_weight[p.slots + i] = 1.0f;
  }
  SyncThreads<1, kFewThreads>();
  const auto each = [&](int expert, auto&& found) {
    for (int i = 0; i < padded; i += 8) {
      const uint4 eight = *reinterpret_cast<const uint4*>(picks + i);
      const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if ((words[j / 2] >> (16 * (j % 2)) & 0xffffu) == static_cast<uint32_t>(expert)) {
          found(i + j);
        }
      }
    }
  };
  int slots = 0, all = 0;  // of the experts before
  for (int begin = 0; begin < p.experts; begin += kFewThreads) {
    const int expert = begin + tid;
    int count = 0;
    if (expert < p.experts) each(expert, [&](int) { ++count; });
    const int own = (count + tile_slots - 1) / tile_slots;
    const int packed = own << 16 | count;
    int sum = packed;  // inclusive
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, sum, offset);
      if (lane >= offset) sum += before;
    }
    if (lane == kWarp - 1) totals[warp] = sum;
    SyncThreads<1, kFewThreads>();
    int total = 0;
    for (int w = 0; w < kFewWarps; ++w) {
      if (w == warp) sum += total - packed;
      total += totals[w];
    }
    int slot = slots + (sum & 0xffff);
    for (int i = 0; i < own; ++i) {
      tiles[all + (sum >> 16) + i] = {static_cast<int16_t>(expert),
                                      static_cast<int16_t>(min(tile_slots, count - i * tile_slots)),
                                      slot + i * tile_slots};
    }
    if (count > 0) {
      each(expert, [&](int i) {
        slot_token[slot] = static_cast<int16_t>(i / p.picks);
        slot_weight[slot] = weights[i];
        ++slot;
      });
    }
    slots += total & 0xffff;
    all += total >> 16;
    SyncThreads<1, kFewThreads>();
  }
  return make_int2(all, slots);
}

// ---- rounds ----

// What the teams do next; of a tile without slots there is nothing to do.
enum FewKind : int8_t { kMultiply, kMeet, kDone };  // kMeet: between sections 1 and 2
struct alignas(16) FewRound {
  FewKind kind;
  int8_t down;           // section 2
  bool both;             // teams share the columns of one item
  bool last;             // of a unit of section 2
  int32_t unit[kTeams];  // of rows
  FewTile tile[kTeams];

  // Up to four slots stand in the even columns of a product of MXFP4, which saves half of what its
  // sums take.
  __device__ bool Sparse(const FewTile& t) const { return !both && t.count <= 4; }
};

// At the beginning of shared memory.
struct FewQueue {
  // Barriers.
  uint64_t full[kTeams][kStages], empty[kTeams][kStages];  // stages
  uint64_t round_full[kQueue], round_empty[kQueue];
  uint64_t parts_full[2], parts_empty[2];
  uint64_t grouped;  // tiles are known
  int32_t routed_tiles;
  FewRound rounds[kQueue];

  __device__ void Init() {
    for (int i = 0; i < kTeams * kStages; ++i) {
      InitBarrier(AddressOf(&full[0][i]), kWarp);
      InitBarrier(AddressOf(&empty[0][i]), kTeamWarps);
    }
    for (int i = 0; i < kQueue; ++i) {
      InitBarrier(AddressOf(&round_full[i]), 1);
      InitBarrier(AddressOf(&round_empty[i]), kFewWarps + 1);
    }
    for (int i = 0; i < 2; ++i) {
      InitBarrier(AddressOf(&parts_full[i]), kFewWarps);
      InitBarrier(AddressOf(&parts_empty[i]), 1);
    }
    InitBarrier(AddressOf(&grouped), 1);
  }
  // The round number `turn`, for a whole warp.
  __device__ FewRound Take(int turn) {
    const int at = turn % kQueue;
    WaitAt(AddressOf(&round_full[at]), turn / kQueue % 2);
    const auto* from = reinterpret_cast<const uint4*>(&rounds[at]);
    const uint4 words[2] = {from[0], from[1]};
    FewRound r;
    static_assert(sizeof(r) == sizeof(words), "in two loads");
    memcpy(&r, words, sizeof(r));
    __syncwarp();
    if (threadIdx.x % kWarp == 0) ArriveAt(AddressOf(&round_empty[at]));
    return r;
  }
  __device__ FewRing Ring(const uint8_t* stages, int team) const {
    return {Kept(AddressOf(stages + team * kStages * kStageBytes)), Kept(AddressOf(full[team]))};
  }
};

// ---- the warp that fetches ----

class FewFetch {
 public:
  __device__ FewFetch(const FewPlan& p, const AllPointers& pointers, FewQueue& queue,
                      const FewTile* tiles, const uint8_t* stages, int tile_slots)
      : p_(p),
        pointers_(pointers),
        queue_(queue),
        tiles_(tiles),
        tile_slots_(tile_slots),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        rings_{queue.Ring(stages, 0), queue.Ring(stages, 1)} {}

  __device__ void Run() {
    const auto blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    const int up_units = p_.inter / 8, shared = p_.shared_tiles;
    const auto first_of = [&](int total, int i) { return i * total / blocks; };
    const int shared_items = shared * up_units;
    for (int i = first_of(shared_items, block); i < first_of(shared_items, block + 1); ++i) {
      FewRound r = {};
      r.both = true;
      r.unit[0] = r.unit[1] = i / shared;
      r.tile[0] = r.tile[1] = SharedTile(i % shared);
      Fetch(r);
    }
    WaitAt(AddressOf(&queue_.grouped), 0);
    const int routed = queue_.routed_tiles, items = routed * up_units;
    // Pairs of neighbouring items go to whoever has time: the memory does not serve all alike.
    for (int pair = block; pair * kTeams < items;) {
      int next = 0;
      if (lane_ == 0) next = static_cast<int>(atomicAdd(p_.counters + 1, 1u)) + blocks;
      FewRound r = {};
      for (int team = 0; team < kTeams && pair * kTeams + team < items; ++team) {
        r.unit[team] = (pair * kTeams + team) % up_units;
        r.tile[team] = tiles_[(pair * kTeams + team) / up_units];
      }
      Fetch(r);
      pair = __shfl_sync(0xffffffffu, next, 0);
    }
    FewRound between = {};
    between.kind = kMeet;
    Tell(between);
    const int units = p_.dim / 16, pairs = (routed + 1) / kTeams;
    for (int i = first_of(units, block); i < first_of(units, block + 1); ++i) {
      for (int n = 0; n < pairs + shared; ++n) {
        FewRound r = {};
        r.down = 1;
        r.both = n >= pairs;
        r.last = n + 1 == pairs + shared;
        r.unit[0] = r.unit[1] = i;
        if (r.both) {
          r.tile[0] = r.tile[1] = SharedTile(n - pairs);
        } else {
          r.tile[0] = tiles_[n * kTeams];
          if (n * kTeams + 1 < routed) r.tile[1] = tiles_[n * kTeams + 1];
        }
        Fetch(r);
      }
    }
    between.kind = kDone;
    Tell(between);
    CommitCopies();
    WaitCopies<0>();
  }

 private:
  // Addresses of a lane's bytes of an item.
  struct Item {
    const uint8_t *upper, *lower, *scales;
    int row_bytes, scale_bytes;  // of a row; no scales in stages: 0
  };

  __device__ FewTile SharedTile(int i) const {
    const int begin = i * tile_slots_;
    return {static_cast<int16_t>(p_.experts),
            static_cast<int16_t>(min(tile_slots_, p_.tokens - begin)), p_.slots + begin};
  }
  __device__ void Tell(const FewRound& r) {
    WaitAt(AddressOf(&queue_.round_empty[round_]), round_parity_ ^ 1);
    if (lane_ == 0) {
      queue_.rounds[round_] = r;
      ArriveAt(AddressOf(&queue_.round_full[round_]));
    }
    round_ = (round_ + 1) % kQueue;
    if (round_ == 0) round_parity_ ^= 1;
  }
  __device__ void Fetch(const FewRound& r) {
    Tell(r);
    const Item first = Open(r, 0), second = r.tile[1].count > 0 ? Open(r, 1) : first;
    const int stages = (first.row_bytes + kRowBytes - 1) / kRowBytes;
    for (int s = 0; s < stages; ++s) {
      if (!r.both || s % 2 == 0) Issue(rings_[0], first, s);
      if (r.both ? s % 2 == 1 : r.tile[1].count > 0) Issue(rings_[1], second, s);
    }
  }
  __device__ Item Open(const FewRound& r, int team) const {
    const int expert = r.tile[team].expert, unit = r.unit[team];
    const int cols = r.down != 0 ? p_.inter : p_.dim;
    const Pointers& w = pointers_.of[expert];
    const int first = unit * (r.down != 0 ? 16 : 8), second = first + r.down * 8;
    const int one = r.down * 2, other = r.down + 1;
    Item item;
    item.row_bytes = r.both ? cols : cols / 2;
    item.upper = w.data[one] + static_cast<int64_t>(first) * item.row_bytes + lane_ * 16;
    item.lower = w.data[other] + static_cast<int64_t>(second) * item.row_bytes + lane_ * 16;
    // Two lanes a row.
    const uint8_t* scales = w.scales[lane_ < 16 ? one : other];
    const int row = lane_ < 16 ? first + lane_ / 2 : second + lane_ / 2 - 8;
    item.scale_bytes = r.both ? 0 : cols / 32;
    item.scales = scales + static_cast<int64_t>(row) * item.scale_bytes + lane_ % 2 * 16;
    // Those of FP8 are read by the products, without a stage.
    if (r.both && lane_ % 16 == 0) PrefetchL2(scales + row / 128 * (cols / 128));
    return item;
  }
  __device__ void Issue(FewRing& ring, const Item& item, int s) const {
    ring.WaitEmpty();
    const uint32_t stage = ring.stage(), to = stage + lane_ / 8 * kLineRows;
    const int column = s * kRowBytes;
    const bool there = column + lane_ * 16 < item.row_bytes;
    const uint8_t *upper = item.upper + column, *lower = item.lower + column;
#pragma unroll
    for (int row = 0; row < 8; ++row) {
      const uint32_t at = to + row * kLineBytes + ((lane_ % 8 ^ Swizzle(row)) << 4);
      CopyAt(at, upper, there);
      CopyAt(at + kHalfBytes, lower, there);
      upper += item.row_bytes;
      lower += item.row_bytes;
    }
    const int scale = s * kScaleBytes;
    if (scale < item.scale_bytes) {
      CopyAt(stage + kStageWeights + lane_ * 16, item.scales + scale,
             scale + lane_ % 2 * 16 < item.scale_bytes);
    }
    ArriveWithCopies(ring.full + ring.index * 8);
    ring.Next();
  }

  const FewPlan& p_;
  const AllPointers& pointers_;
  FewQueue& queue_;
  const FewTile* tiles_;
  int tile_slots_, lane_;
  FewRing rings_[kTeams];
  int round_ = 0, round_parity_ = 0;
};

}  // namespace
}  // namespace seacliff::experts
