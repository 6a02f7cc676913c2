// Items of the CUDA path of experts for few tokens (cuda_few.cu): which slots belong to whom, what
// a warp multiplies in which order, and the copies of the weights for it. Device code, but for the
// layout of shared memory.
#pragma once

#include "kernels/experts/cuda_few.cuh"

namespace seacliff::experts {
namespace {

constexpr int kFewWarps = 8, kFewThreads = kFewWarps * kWarp;
constexpr int kStages = 2;  // of a warp
constexpr int kFewMostSlots = 2048;
constexpr int kTileSlots = 8;                           // most of a routed expert's tile
constexpr int kOctets = 2, kSharedSlots = 8 * kOctets;  // of the shared expert's

// Slots of one expert, whose number is `experts` for the shared one.
struct alignas(8) FewTile {
  int16_t expert, count;
  int32_t begin;
};

struct FewPlan : Common {
  int32_t each[2];     // units of a block, of pass 0 and of y
  int32_t busy;        // blocks that have units of the shared expert in pass 0
  int32_t segments;    // of a routed expert's rows in pass 0, an item each; 1: they are not split
  uint32_t* counters;  // [2] of Device::counters
  // In the workspace. Values are e4m3 as f16, each eight in the order 0 4 1 5 2 6 3 7.
  uint32_t* arrivals;  // [2]
  uint16_t* x_values;  // [tokens, dim]
  float* x_scales;     // [tokens, dim / 128]
  float* parts;        // [slots, segments, 2, inter]: what segments add to w1 x and w3 x
  uint16_t* hidden;    // [slots + tokens, inter], bf16 at first
  float* hidden_scales;
};

// Where things stand in shared memory. Outputs are those of the shared expert and then, in the
// place of its parts, of the routed ones. The slots are sorted where outputs will stand.
struct FewShared {
  int32_t outputs, parts, counts, drawn, tiles, slot_weight, slot_token, order, bytes;
};
__host__ __device__ inline FewShared FewLayout(int tokens, int slots, int experts) {
  const int most_tiles = slots / kTileSlots + (slots < experts ? slots : experts);
  FewShared s;
  s.outputs = kFewWarps * kStages * kStageBytes;
  s.parts = s.outputs + tokens * 16 * 2;
  const int parts = kOctets * kFewWarps * kWarp * 16, routed = slots * 16 * 2;
  s.counts = s.parts + (parts > routed ? parts : routed);
  s.drawn = s.counts + (2 + kFewWarps) * 4;
  s.tiles = s.drawn + kFewWarps * 4 * 4;
  s.slot_weight = s.tiles + most_tiles * static_cast<int>(sizeof(FewTile));
  s.slot_token = s.slot_weight + (slots + tokens) * 4;
  s.order = s.slot_token + (slots + tokens) * 2;
  s.bytes = s.order + slots * 2;
  return s;
}

// ---- which slots belong to whom ----

// What a block knows of all slots. Those of an expert follow one another, in the order of tokens;
// those of the shared expert stand behind p.slots.
struct FewSlots {
  FewTile* tiles;
  float* weight;    // of a slot
  int16_t* token;   // of a slot
  int16_t* order;   // [tokens, picks]: a token's slots in the order of their experts, then -1
  int32_t* counts;  // [2] of tiles, of slots in use

  // While they are sorted.
  int32_t *begin, *end;  // of the slots of an expert
  float* pick_weight;    // of a pick
  int16_t* picks;        // -1: no expert
  int16_t* members;      // picks by their experts, of each in any order

  __device__ FewSlots(const FewPlan& p, const FewShared& layout, uint8_t* shared) {
    tiles = reinterpret_cast<FewTile*>(shared + layout.tiles);
    weight = reinterpret_cast<float*>(shared + layout.slot_weight);
    token = reinterpret_cast<int16_t*>(shared + layout.slot_token);
    order = reinterpret_cast<int16_t*>(shared + layout.order);
    counts = reinterpret_cast<int32_t*>(shared + layout.counts);
    begin = reinterpret_cast<int32_t*>(shared + layout.outputs);
    end = begin + p.experts;
    pick_weight = reinterpret_cast<float*>(end + p.experts);
    picks = reinterpret_cast<int16_t*>(pick_weight + p.slots);
    members = picks + p.slots;
  }
  __device__ void Clear(const FewPlan& p) const {
    for (int e = static_cast<int>(threadIdx.x); e < p.experts; e += kFewThreads) end[e] = 0;
  }
  // Picks, and how many each expert has.
  __device__ void Load(const FewPlan& p) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < p.slots; i += kFewThreads) {
      const int of = i / p.picks, n = i - of * p.picks;
      const int pick = p.picked[of * p.picked_stride + n];
      pick_weight[i] = p.weights[of * p.weights_stride + n];
      const bool known = pick >= 0 && pick < p.experts;
      picks[i] = static_cast<int16_t>(known ? pick : -1);
      if (known) atomicAdd(&end[pick], 1);
    }
  }
  // Once the whole block has loaded: for one token, whose picks are a tile each.
  __device__ void GroupOne(const FewPlan& p) const {
    const int i = static_cast<int>(threadIdx.x);
    if (i < p.slots) {
      int slot = 0, used = 0;  // -1 comes last
      for (int n = 0; n < p.slots; ++n) {
        const auto a = static_cast<uint16_t>(picks[n]), b = static_cast<uint16_t>(picks[i]);
        slot += a < b || (a == b && n < i) ? 1 : 0;
        used += picks[n] >= 0 ? 1 : 0;
      }
      const bool known = slot < used;
      if (known) tiles[slot] = {picks[i], 1, slot};
      token[slot] = 0;
      weight[slot] = pick_weight[i];
      order[slot] = static_cast<int16_t>(known ? slot : -1);
      counts[0] = counts[1] = used;
    }
    if (i == p.slots) {
      token[i] = 0;
      weight[i] = 1.0f;
    }
    __syncthreads();
  }
  // The same for any number of them.
  __device__ void Group(const FewPlan& p) const {
    const int tid = static_cast<int>(threadIdx.x), warp = tid / kWarp, lane = tid % kWarp;
    for (int i = tid; i < p.tokens; i += kFewThreads) {
      token[p.slots + i] = static_cast<int16_t>(i);
      weight[p.slots + i] = 1.0f;
    }
    int before = 0;  // tiles << 16 | slots of the experts before
#pragma unroll 1
    for (int base = 0; base < p.experts; base += kFewThreads) {
      const int expert = base + tid, count = expert < p.experts ? end[expert] : 0;
      const int own = (count + kTileSlots - 1) / kTileSlots << 16 | count;
      int sum = own;  // up to this lane
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += other;
      }
      if (lane == kWarp - 1) counts[2 + warp] = sum;
      __syncthreads();
      sum += before - own;
      for (int w = 0; w < kFewWarps; ++w) {
        if (w < warp) sum += counts[2 + w];
        before += counts[2 + w];
      }
      if (expert < p.experts) begin[expert] = end[expert] = sum & 0xffff;
      for (int i = 0; i < own >> 16; ++i) {
        tiles[(sum >> 16) + i] = {static_cast<int16_t>(expert),
                                  static_cast<int16_t>(min(kTileSlots, count - i * kTileSlots)),
                                  (sum & 0xffff) + i * kTileSlots};
      }
      __syncthreads();
    }
    if (tid == 0) {
      counts[0] = before >> 16;
      counts[1] = before & 0xffff;
    }
    for (int i = tid; i < p.slots; i += kFewThreads) {
      if (picks[i] >= 0) members[atomicAdd(&end[picks[i]], 1)] = static_cast<int16_t>(i);
    }
    __syncthreads();
#pragma unroll 1
    for (int i = tid; i < p.slots; i += kFewThreads) {
      const int pick = picks[i], of = i / p.picks;
      int slot = -1;
      if (pick >= 0) {
        slot = begin[pick];
        for (int m = begin[pick]; m < end[pick]; ++m) slot += members[m] < i ? 1 : 0;
        token[slot] = static_cast<int16_t>(of);
        weight[slot] = pick_weight[i];
      }
      int earlier = 0;  // of the token's; -1 comes last
      for (int n = of * p.picks; n < (of + 1) * p.picks; ++n) {
        const auto a = static_cast<uint16_t>(picks[n]), b = static_cast<uint16_t>(pick);
        earlier += a < b || (a == b && n < i) ? 1 : 0;
      }
      order[of * p.picks + earlier] = static_cast<int16_t>(slot);
    }
    __syncthreads();
  }
};

// ---- items ----

// Of `total` things, those of a block are FirstOf(block) .. FirstOf(block + 1): `each`, and none
// for the last blocks. Two blocks of a multiprocessor have numbers far apart: where half of the
// blocks have none, it gets one of either kind.
__device__ inline int FirstOf(int total, int each, int block) { return min(block * each, total); }
// Lines of 128 columns that a warp has of an item of FP8, which all warps share.
__device__ inline int Fp8LinesEach(int cols) { return (cols / 128 + kFewWarps - 1) / kFewWarps; }
__device__ inline int Fp8Lines(int cols) {
  const int each = Fp8LinesEach(cols), first = static_cast<int>(threadIdx.x) / kWarp * each;
  return max(0, min(each, cols / 128 - first));
}

// A warp's stages of weights. They are copied in the order in which the warp will multiply them,
// across items and passes, as soon as there is room. Pass 0 is for h, each further one for a unit
// of y; first come the items of the shared expert, of all warps, and then the warp's own.
template <bool kOne>
class FewCopies {
 public:
  // `drawn`: four numbers of this warp's in shared memory.
  __device__ FewCopies(const FewPlan& p, const AllPointers& pointers, const FewTile* tiles,
                       const uint8_t* stages, uint32_t* drawn)
      : p_(p),
        pointers_(pointers),
        tiles_(tiles),
        drawn_(drawn),
        first_(AddressOf(stages + Warp() * kStages * kStageBytes)),
        unit_(FirstOf(p.inter / 8, p.each[0], static_cast<int>(blockIdx.x))),
        end_(FirstOf(p.inter / 8, p.each[0], static_cast<int>(blockIdx.x) + 1)) {
    // Blocks that have none of the shared expert come first with the others.
    const auto blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    const int free = blocks - p.busy;
    next_ = block < p.busy ? kFewWarps * free + Warp() * p.busy + block
                           : Warp() * free + block - p.busy;
  }
  // Copies as much as there is room for; before the number of tiles is known, -1, what can be
  // copied without them.
  __device__ void Fill(int routed) {
    routed_ = routed;
    for (; filled_ < kStages && Copy(filled_); ++filled_) continue;
  }
  // The warp's own item of pass 0 that comes `turn` th: its tile, unit and segment; 0: there is
  // none.
  __device__ uint32_t Drawn(int turn) const { return drawn_[turn % 4]; }
  __device__ static int TileOf(uint32_t item) { return static_cast<int>(item >> 16) - 1; }
  __device__ int UnitOf(uint32_t item) const {
    const auto of = static_cast<int>(item & 0xffffu);
    return kOne ? of / p_.segments : of;
  }
  __device__ int SegmentOf(uint32_t item) const {
    return kOne ? static_cast<int>(item & 0xffffu) % p_.segments : 0;
  }
  // Waits for the next stage and gives its address.
  __device__ uint32_t Take() const {
    WaitCopies<kStages - 1>();
    __syncwarp();
    return first_ + taken_ * kStageBytes;
  }
  // The warp is through with the stage that it took.
  __device__ void GiveBack() {
    __syncwarp();
    Copy(taken_);
    taken_ = (taken_ + 1) % kStages;
  }

 private:
  __device__ static int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  // Copies the next stage, if there is one, to place `to`; false if that is not known yet.
  __device__ bool Copy(int to) {
    const bool there = left_ > 0 || Open();
    if (!there && routed_ < 0) return false;
    if (there) Issue(first_ + to * kStageBytes);
    CommitCopies();
    return true;
  }
  __device__ void Issue(uint32_t stage) {
    const int lane = Lane(), row = lane / 8;
    uint32_t to = stage + row * kLineBytes + ((lane % 8 ^ Swizzle(row)) << 4);
    const int four = 4 * row_bytes_;
#pragma unroll
    for (int line = 0; line < kStageLines; ++line) {
      if (line < left_) {
        // Rows four apart differ in the lowest bit of their swizzle.
        const uint32_t other = (to ^ 16) + 4 * kLineBytes;
        CopyAt(to, upper_ + line * kLineBytes);
        CopyAt(other, upper_ + four + line * kLineBytes);
        CopyAt(to + kHalfBytes, lower_ + line * kLineBytes);
        CopyAt(other + kHalfBytes, lower_ + four + line * kLineBytes);
      }
      to += kLineRows;
    }
    if (scales_ != nullptr) {
      CopyAt(stage + kStageWeights + lane * kScaleBytes, scales_);
      scales_ += kScaleBytes;
    }
    upper_ += kStageLines * kLineBytes;
    lower_ += kStageLines * kLineBytes;
    left_ -= kStageLines;
  }
  // The next item; false if there is none or it is not known yet.
  __device__ bool Open() {
    for (;;) {
      const bool down = pass_ > 0;
      const int cols = down ? p_.inter : p_.dim, lane = Lane();
      int expert = p_.experts, unit = unit_, segment = 0;
      const bool shared = tile_ < p_.shared_tiles && unit_ < end_;
      if (shared) {
        if (++tile_ == p_.shared_tiles && !down) {
          tile_ = 0;
          ++unit_;
        }
      } else {
        if (routed_ < 0) return false;
        int tile;
        if (down) {
          tile = next_;
          next_ += kFewWarps;
        } else {
          tile = Draw(&unit, &segment);
        }
        if (tile >= routed_) {
          if (!NextPass()) return false;
          continue;
        }
        expert = tiles_[tile].expert;
      }
      const Pointers& w = pointers_.of[expert];
      const int upper = unit * (down ? 16 : 8), lower = upper + (down ? 8 : 0);
      row_bytes_ = shared ? cols : cols / 2;
      upper_ = w.data[down ? 2 : 0] + static_cast<int64_t>(upper + lane / 8) * row_bytes_;
      lower_ = w.data[down ? 2 : 1] + static_cast<int64_t>(lower + lane / 8) * row_bytes_;
      int first_line = shared ? Warp() * Fp8LinesEach(cols) : 0;
      left_ = shared ? Fp8Lines(cols) : cols / kLineColumns;
      if (kOne && !down && !shared) {
        first_line = SegmentBegin(left_, p_.segments, segment);
        left_ = SegmentBegin(left_, p_.segments, segment + 1) - first_line;
      }
      if (left_ == 0) continue;
      upper_ += first_line * kLineBytes + lane % 8 * 16;
      lower_ += first_line * kLineBytes + lane % 8 * 16;
      // A row of scales to a lane; those of FP8 are read by the products, without a stage.
      const int row = lane < 8 ? upper + lane : lower + lane - 8;
      const uint8_t* scales = lane < 8 ? w.scales[down ? 2 : 0] : w.scales[down ? 2 : 1];
      scales_ = nullptr;
      if (lane < 16 && shared) {
        PrefetchL2(scales + row / 128 * (cols / 128) + first_line);
      } else if (lane < 16) {
        scales_ =
            scales + static_cast<int64_t>(row) * (cols / 32) + first_line * (kLineColumns / 32);
      }
      return true;
    }
  }
  // A routed item of pass 0 goes to whoever has time, but for a warp's first: the memory does not
  // serve all alike.
  __device__ int Draw(int* unit, int* segment) {
    const auto of_tile = static_cast<uint32_t>(p_.inter / 8 * (kOne ? p_.segments : 1));
    const uint32_t item = __shfl_sync(0xffffffffu, next_, 0);
    const uint32_t tile = item / of_tile, drawn = (tile + 1) << 16 | (item - tile * of_tile);
    *unit = UnitOf(drawn);
    *segment = SegmentOf(drawn);
    const bool there = tile < static_cast<uint32_t>(routed_);
    if (Lane() == 0) {
      drawn_[turn_ % 4] = there ? drawn : 0;
      if (there) next_ = static_cast<int>(atomicAdd(p_.counters + 1, 1u) + gridDim.x * kFewWarps);
    }
    ++turn_;
    return there ? static_cast<int>(tile) : routed_;
  }
  __device__ bool NextPass() {
    const int units = p_.dim / 16, block = static_cast<int>(blockIdx.x);
    unit_ = FirstOf(units, p_.each[1], block) + pass_;
    end_ = FirstOf(units, p_.each[1], block + 1);
    ++pass_;
    tile_ = 0;
    const bool there = unit_ < end_;
    next_ = there ? Warp() : routed_;
    return there;
  }

  const FewPlan& p_;
  const AllPointers& pointers_;
  const FewTile* tiles_;
  uint32_t* drawn_;
  uint32_t first_;              // address of the first stage
  int filled_ = 0, taken_ = 0;  // stages
  int pass_ = 0, turn_ = 0, routed_ = -1;
  int unit_, end_, tile_ = 0;     // of the shared expert
  int next_ = 0;                  // of the routed ones
  int left_ = 0, row_bytes_ = 0;  // of the open item: lines
  const uint8_t *upper_ = nullptr, *lower_ = nullptr, *scales_ = nullptr;  // a lane's
};

}  // namespace
}  // namespace seacliff::experts
