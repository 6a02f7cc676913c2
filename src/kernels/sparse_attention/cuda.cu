// cuda row of sparse_attention.
//
// A block takes one token, 16, 32 or 64 heads, and a list of keys in tiles of 32. Warp w has the
// w-th 64 values of every head and key throughout, which is one scale group of an entry: its part
// of the query in registers, its part of each score, and its part of the output. The parts of a
// score are added up through shared memory, where keys lie as they are stored: a warp decodes what
// it needs on the way into its registers. While a tile's values are added to the output, the next
// one's scores are computed and those after it are on their way.
//
// Tokens of sequences that bring few to the step share their keys out in pieces of fixed length,
// whose outputs Combine adds up; a token of a long chunk goes through its keys in one block. So a
// token's bits depend on its own sequence alone, and on no number of heads in a block.
#include <algorithm>

#include "kernels/sparse_attention/cuda_keys.cuh"

namespace seacliff::sparse_attention {
namespace {

constexpr int64_t kMaxWorkspace = int64_t{512} << 20;

__device__ inline float Exp(float x) { return exp2f(x * 1.44269504f); }
// Of every thread of the block. Warps of different groups meet here from different code.
__device__ inline void Meet() { asm volatile("bar.sync 0, %0;\n" ::"r"(blockDim.x) : "memory"); }

// ---- compute ----

template <int kTiles>
struct Registers {
  uint32_t q[kTiles][4][4];  // factors a: 16 heads, 4 steps of 16 values
  float out[kTiles][8][4];   // 16 heads, 8 columns eight times
};

// This warp's part of the scores of a tile: to `scores` [kHeads, kTile], groups of 8 keys exchanged
// so that neither the stores here nor the loads later meet in a bank.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddScores(const Registers<kTiles>& r, const Lane<kRope>& from,
                                          const uint8_t* scales, float* scores) {
  constexpr int kAtOnce = 4 / kTiles;  // groups of 8 keys
  const int g = from.lane / 4, t = from.lane % 4;
#pragma unroll
  for (int first = 0; first < 4; first += kAtOnce) {
    uint32_t b[kAtOnce][4][2];
    float s[kAtOnce][kTiles][4] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) from.ForScores(8 * (first + i), b[i]);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) MmaBf16(s[i][m], r.q[m][step], b[i][step]);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int key = 8 * (first + i) + 2 * t;
      const float scale0 = kRope ? 1.0f : FromE8m0(scales[key * kScales]);
      const float scale1 = kRope ? 1.0f : FromE8m0(scales[(key + 1) * kScales]);
      float* to = scores + g * kTile + (key ^ (g % 4 * 8));
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        *reinterpret_cast<float2*>(to + 16 * m * kTile) =
            make_float2(s[i][m][0] * scale0, s[i][m][1] * scale1);
        *reinterpret_cast<float2*>(to + (16 * m + 8) * kTile) =
            make_float2(s[i][m][2] * scale0, s[i][m][3] * scale1);
      }
    }
  }
}

// Scores to weights relative to the largest so far. Eight threads a head, four keys each.
template <int kTiles>
__device__ __forceinline__ void Weigh(Shared<kTiles>& shared, const float* scores, int groups,
                                      float scale, uint32_t valid) {
  constexpr int kHeads = Shared<kTiles>::kHeads;
  for (int unit = threadIdx.x; unit < 8 * kHeads; unit += groups * kWarp) {
    const int head = unit / 8, chunk = unit % 8;
    const float* from = scores + head * kTile + (4 * chunk ^ (head % 4 * 8));
    float s[4] = {};
#pragma unroll 8
    for (int w = 0; w < groups; ++w) {
      const float4 part = *reinterpret_cast<const float4*>(from + w * kHeads * kTile);
      s[0] += part.x, s[1] += part.y, s[2] += part.z, s[3] += part.w;
    }
    const float before = shared.top[head];
    float top = before;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[i] = (valid >> (4 * chunk + i) & 1) != 0 ? s[i] * scale : -INFINITY;
      top = fmaxf(top, s[i]);
    }
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) {
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lanes));
    }
    float sum = 0, weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] = s[i] == -INFINITY ? 0.0f : Exp(s[i] - top);
      sum += weight[i];
    }
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    *reinterpret_cast<uint2*>(shared.weights + head * Shared<kTiles>::kWeightPitch + 4 * chunk) =
        make_uint2(Bf16Pair(weight[0], weight[1]), Bf16Pair(weight[2], weight[3]));
    __syncwarp();
    if (chunk == 0) {
      const float factor = before == -INFINITY ? 0.0f : Exp(before - top);
      shared.factor[head] = factor;
      shared.top[head] = top;
      shared.sum[head] = shared.sum[head] * factor + sum;
    }
  }
}

// The tile's values by their weights, onto what the tiles before gave.
template <int kTiles, bool kRope>
__device__ __forceinline__ void AddValues(Registers<kTiles>& r, const Lane<kRope>& from,
                                          const uint8_t* scales, const Shared<kTiles>& shared) {
  const int lane = from.lane, g = lane / 4, t = lane % 4;
  bool same = true;
  float factor[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
    factor[m][0] = shared.factor[16 * m + g];
    factor[m][1] = shared.factor[16 * m + g + 8];
    same = same && factor[m][0] == 1.0f && factor[m][1] == 1.0f;
  }
  if (!__all_sync(0xffffffffu, same)) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) r.out[m][n][i] *= factor[m][i / 2];
      }
    }
  }
#pragma unroll
  for (int first = 0; first < kTile; first += 16) {
    uint32_t weights[kTiles][4];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      LoadMatrix4(weights[m], shared.weights + (16 * m + lane % 16) * Shared<kTiles>::kWeightPitch +
                                  first + lane / 16 * 8);
    }
    if constexpr (!kRope) {
      // Scales go to the weights: a power of two changes no digit of them.
      uint32_t scale[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint8_t* at = scales + (first + 2 * t + 8 * i) * kScales;
        const uint32_t one = at[0], two = at[kScales];
        scale[i] = (one == 0 ? 0x40u : one << 7) | (two == 0 ? 0x40u : two << 7) << 16;
      }
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) weights[m][i] = Times(weights[m][i], scale[i / 2]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b[4][2];
      from.ForValues(first, half, b);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) MmaBf16(r.out[m][4 * half + n], weights[m], b[n]);
      }
    }
  }
}

// ---- store ----

// 1 / the denominator, for sums relative to `top`, and what they are multiplied with.
__device__ inline float Inverse(float top, float sum, float sink) {
  const float most = fmaxf(top, sink), lower = Exp(top - most);
  return lower / (sum * lower + Exp(sink - most));
}

// Rounded, turned back, rounded.
__device__ inline uint32_t TurnedBack(float a, float b, float2 turn) {
  a = RoundBf16(a), b = RoundBf16(b);
  return Bf16Pair(__fmul_rn(a, turn.x) + __fmul_rn(b, turn.y),
                  __fmul_rn(b, turn.x) - __fmul_rn(a, turn.y));
}

// One head's values of this warp: v[n] are columns n of the product of rows g or g + 8, each two.
// In groups of e4m3 columns 2n and 2n + 1 stand in one another: values 16n + 4t .. + 3.
template <bool kRope, typename Get>
__device__ inline void StoreHead(Bf16* to, int t, float inverse, const float2* turns, Get v) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if constexpr (kRope) {
      *reinterpret_cast<uint32_t*>(to + 8 * n + 2 * t) =
          TurnedBack(v(n, 0) * inverse, v(n, 1) * inverse, turns[4 * n + t]);
    } else if (n % 2 == 0) {
      *reinterpret_cast<uint2*>(to + 8 * n + 4 * t) =
          make_uint2(Bf16Pair(v(n, 0) * inverse, v(n + 1, 0) * inverse),
                     Bf16Pair(v(n, 1) * inverse, v(n + 1, 1) * inverse));
    }
  }
}
template <bool kRope, typename Get>
__device__ inline void StorePart(float* to, int t, Get v) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if constexpr (kRope) {
      *reinterpret_cast<float2*>(to + 8 * n + 2 * t) = make_float2(v(n, 0), v(n, 1));
    } else if (n % 2 == 0) {
      *reinterpret_cast<float4*>(to + 8 * n + 4 * t) =
          make_float4(v(n, 0), v(n + 1, 0), v(n, 1), v(n + 1, 1));
    }
  }
}

// ---- the kernel ----

struct Work {
  Keys keys;
  int32_t first_head;
  int32_t begin, end;  // keys of this block
  int64_t part;        // where its sums go: (slot, piece); -1: straight to the output
};

// This warp's values of the heads' queries, and no output yet. Heads beyond the last are zero.
template <int kTiles, bool kRope>
__device__ __forceinline__ void LoadQueries(const Params& p, const Work& work, int warp, int g,
                                            int t, Registers<kTiles>& r) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int head = work.first_head + 16 * m + 8 * below + g;
      const Bf16* row = p.q + (int64_t{work.keys.token} * p.heads + head) * p.dim + kGroup * warp;
      const bool there = head < p.heads;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t low = 0, high = 0;
        if (there && kRope) {
          low = *reinterpret_cast<const uint32_t*>(row + 16 * step + 2 * t);
          high = *reinterpret_cast<const uint32_t*>(row + 16 * step + 8 + 2 * t);
        } else if (there) {
          const uint2 four = *reinterpret_cast<const uint2*>(row + 16 * step + 4 * t);
          low = four.x, high = four.y;
        }
        r.q[m][step][below] = low;
        r.q[m][step][2 + below] = high;
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) r.out[m][n][i] = 0;
    }
  }
}

// Warps whose group is of e4m3 and the one of bf16 run the same steps and meet at the same
// barriers.
template <int kTiles, bool kRope>
__device__ __forceinline__ void Run(const Params& p, const Work& work, Shared<kTiles>& shared,
                                    uint8_t* stages, float* scores, int groups) {
  constexpr int kHeads = Shared<kTiles>::kHeads;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int pitch = Pitch(groups), stage_bytes = StageBytes(groups);
  const int tiles = (work.end - work.begin + kTile - 1) / kTile;

  // The first two tiles' keys; the loop finds and fetches the others three tiles ahead of use.
  for (int tile = warp; tile < kStages - 1; tile += groups) {
    Search search;
    search.Name(p, work.keys, work.begin + tile * kTile + lane, work.end);
    search.Look(p, work.keys);
    const bool found = search.Find(p, &shared.sources[tile][lane]);
    const uint32_t valid = __ballot_sync(0xffffffffu, found);
    if (lane == 0) shared.valid[tile] = valid;
  }
  if (threadIdx.x < kHeads) {
    shared.top[threadIdx.x] = -INFINITY;
    shared.sum[threadIdx.x] = 0;
  }
  Meet();
#pragma unroll 1
  for (int tile = 0; tile < kStages - 1; ++tile) {
    if (tile < tiles) {
      FetchTile(p, shared.sources[tile], stages + tile * stage_bytes, groups);
    }
    CommitCopies();
  }

  Registers<kTiles> r;
  LoadQueries<kTiles, kRope>(p, work, warp, g, t, r);
  if (kRope && work.part < 0) {
    const float angle = __fmul_rn(static_cast<float>(work.keys.position), p.frequencies[lane]);
    sincosf(angle, &shared.turns[lane].y, &shared.turns[lane].x);
  }

  float* own_scores = scores + warp * kHeads * kTile;
  const auto stage_of = [&](int tile) { return stages + tile % kStages * stage_bytes; };
#pragma unroll 1
  for (int tile = -1; tile < tiles; ++tile) {
    const int next = tile + 1, coming = tile + kStages;
    WaitCopies<kStages - 2>();  // the next tile's keys
    Meet();                     // this tile's weights; its scores have been read
    Search search;
    const bool searches = warp == 0 && coming < tiles;
    if (searches) search.Name(p, work.keys, work.begin + coming * kTile + lane, work.end);
    const uint32_t valid = next < tiles ? shared.valid[next % (kStages + 1)] : 0;
    if (valid != 0) {
      const uint8_t* stage = stage_of(next);
      AddScores<kTiles, kRope>(r, Lane<kRope>{stage + kGroup * warp, pitch, lane},
                               stage + kTile * pitch + warp, own_scores);
    }
    if (searches) search.Look(p, work.keys);
    if (tile >= 0 && shared.valid[tile % (kStages + 1)] != 0) {
      const uint8_t* stage = stage_of(tile);
      AddValues<kTiles, kRope>(r, Lane<kRope>{stage + kGroup * warp, pitch, lane},
                               stage + kTile * pitch + warp, shared);
    }
    if (searches) {
      const bool found = search.Find(p, &shared.sources[coming % kStages][lane]);
      const uint32_t there = __ballot_sync(0xffffffffu, found);
      if (lane == 0) shared.valid[coming % (kStages + 1)] = there;
    }
    Meet();  // the next tile's scores; this tile's keys have been read
    if (coming < tiles) {
      FetchTile(p, shared.sources[coming % kStages], stage_of(coming), groups);
    }
    CommitCopies();
    if (valid != 0) Weigh(shared, scores, groups, p.scale, valid);
  }

  const int64_t part_row = work.part * p.heads;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int row = 16 * m + 8 * below + g, head = work.first_head + row;
      if (head >= p.heads) continue;
      const auto v = [&](int n, int i) { return r.out[m][n][2 * below + i]; };
      if (work.part < 0) {
        const int64_t at = (int64_t{work.keys.token} * p.heads + head) * p.dim + kGroup * warp;
        const float inverse = Inverse(shared.top[row], shared.sum[row], p.sink[head]);
        StoreHead<kRope>(p.out + at, t, inverse, shared.turns, v);
      } else {
        StorePart<kRope>(p.parts + (part_row + head) * p.dim + kGroup * warp, t, v);
        if (kRope && t == 0) {
          p.parts_stat[part_row + head] = make_float2(shared.top[row], shared.sum[row]);
        }
      }
    }
  }
}

// kFull: 8 groups, known to the compiler.
template <int kTiles, bool kFull>
__global__ void __launch_bounds__(8 * kWarp, kTiles == 1 ? 2 : 1) Attend(const Params p) {
  extern __shared__ uint4 memory[];
  const int groups = kFull ? 8 : p.dim / kGroup;

  Work work;
  work.first_head = static_cast<int32_t>(blockIdx.x % p.blocks) * Shared<kTiles>::kHeads;
  int64_t item = blockIdx.x / p.blocks;
  work.part = -1;
  if (item < p.whole) {
    if (TokensOf(p, p.seq_of[item]) <= kFew) return;
    work.keys = KeysOf(p, static_cast<int>(item));
    work.begin = 0;
    work.end = work.keys.count;
  } else {
    item -= p.whole;
    const int token = TokenOf(p, p.first_slot + item / p.pieces);
    if (token < 0) return;
    work.keys = KeysOf(p, token);
    const Piece piece = PiecesOf(work.keys.count);
    work.begin = static_cast<int32_t>(item % p.pieces) * piece.length;
    work.end = min(work.begin + piece.length, work.keys.count);
    if (work.begin >= work.end) return;
    if (piece.count > 1) work.part = item;
  }

  auto& shared = *reinterpret_cast<Shared<kTiles>*>(memory);
  auto* stages = reinterpret_cast<uint8_t*>(memory) + sizeof(Shared<kTiles>);
  auto* scores = reinterpret_cast<float*>(stages + kStages * StageBytes(groups));
  if (static_cast<int>(threadIdx.x / kWarp) < groups - 1) {
    Run<kTiles, false>(p, work, shared, stages, scores, groups);
  } else {
    Run<kTiles, true>(p, work, shared, stages, scores, groups);
  }
}

// A block for each (slot, head), four values a thread.
__global__ void Combine(const Params p) {
  const int token = TokenOf(p, p.first_slot + blockIdx.x);
  if (token < 0) return;
  const Keys keys = KeysOf(p, token);
  const int count = PiecesOf(keys.count).count;
  if (count == 1) return;
  const int head = blockIdx.y, first = 4 * threadIdx.x;
  const int64_t row = int64_t{blockIdx.x} * p.pieces * p.heads + head;

  const float sink = p.sink[head];
  float most = sink;
  for (int i = 0; i < count; ++i) most = fmaxf(most, p.parts_stat[row + int64_t{i} * p.heads].x);
  float total = Exp(sink - most);
  float4 sum = {};
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    const int64_t at = row + int64_t{i} * p.heads;
    const float4 part = *reinterpret_cast<const float4*>(p.parts + at * p.dim + first);
    const float2 stat = p.parts_stat[at];
    const float weight = Exp(stat.x - most);
    total += weight * stat.y;
    sum.x += weight * part.x, sum.y += weight * part.y;
    sum.z += weight * part.z, sum.w += weight * part.w;
  }
  const float inverse = 1.0f / total;
  uint2 out;
  const int pair = (first - (p.dim - kGroup)) / 2;
  if (pair < 0) {
    out.x = Bf16Pair(sum.x * inverse, sum.y * inverse);
    out.y = Bf16Pair(sum.z * inverse, sum.w * inverse);
  } else {
    float2 turn[2];
    for (int i = 0; i < 2; ++i) {
      const float angle = __fmul_rn(static_cast<float>(keys.position), p.frequencies[pair + i]);
      sincosf(angle, &turn[i].y, &turn[i].x);
    }
    out.x = TurnedBack(sum.x * inverse, sum.y * inverse, turn[0]);
    out.y = TurnedBack(sum.z * inverse, sum.w * inverse, turn[1]);
  }
  const int64_t at = (int64_t{token} * p.heads + head) * p.dim + first;
  *reinterpret_cast<uint2*>(p.out + at) = out;
}

Entries EntriesOf(const PagedView& view, const View<const int32_t, 2>& table) {
  Entries e = {};
  e.data = reinterpret_cast<const uint8_t*>(view.data);
  e.table = table.data;
  e.table_stride = table.stride[0];
  e.table_width = table.shape[1];
  e.page_bytes = view.page_bytes();
  e.scales = view.page_len * (view.dim + kGroup);
  e.pages = view.pages;
  e.page_len = static_cast<int32_t>(view.page_len);
  return e;
}

template <int kTiles, bool kFull>
void LaunchAttend(Context& k, Params p, int64_t items) {
  p.blocks = static_cast<int32_t>(CeilDiv(p.heads, Shared<kTiles>::kHeads));
  const int groups = p.dim / kGroup;
  Launch(k, "sparse_attention", Attend<kTiles, kFull>,
         dim3(static_cast<uint32_t>(items * p.blocks)), dim3(static_cast<uint32_t>(groups) * kWarp),
         SharedBytes<kTiles>(groups), p);
}

}  // namespace

void Cuda(Context& k, const SparseAttentionArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  const int64_t seqs = a.batch.seqs();
  if (tokens == 0) return;
  Params p = {};
  p.q = static_cast<const Bf16*>(a.q.data);
  p.out = static_cast<Bf16*>(a.out.data);
  p.sink = a.sink.data;
  p.frequencies = a.frequencies.data;
  p.positions = a.batch.positions.data;
  p.seq_of = a.batch.seq_of.data;
  p.seq_begin = a.batch.seq_begin.data;
  p.window = p.compressed = EntriesOf(a.window, a.batch.window_pages);
  p.heads = static_cast<int32_t>(heads);
  p.dim = static_cast<int32_t>(dim);
  p.window_len = static_cast<int32_t>(a.window_len);
  p.ratio = static_cast<int32_t>(a.ratio);
  p.scale = a.scale;
  int64_t most_keys = a.window_len;
  if (a.ratio != 0) {
    p.compressed = EntriesOf(a.compressed, a.batch.compressed_pages);
    if (a.picks) {
      p.picks = a.picks.data;
      p.picks_stride = a.picks.stride[0];
      p.topk = static_cast<int32_t>(a.picks.shape[1]);
    }
    most_keys += a.picks ? a.picks.shape[1] : p.compressed.table_width * p.compressed.page_len;
  }

  // Without a look at the batch: which kinds of tokens may be there?
  const bool few = tokens <= kFew || seqs > 1, many = tokens > kFew;
  const bool slots_are_tokens = tokens <= seqs * kFew;
  const int64_t slots = !few ? 0 : slots_are_tokens ? tokens : seqs * kFew;
  p.pieces = static_cast<int32_t>(std::min<int64_t>(CeilDiv(most_keys, kPiece), kMaxPieces));
  p.slots_of_seq = slots_are_tokens ? 0 : kFew;

  // More heads to a block decode fewer keys again, as long as there is work for every processor.
  const int64_t items = std::max(many ? tokens : 0, slots * p.pieces);
  const auto busy = [&](int64_t heads_of_block) {
    return heads > heads_of_block / 2 &&
           items * CeilDiv(heads, heads_of_block) >= 2 * Multiprocessors(k);
  };
  const bool full = dim == 8 * kGroup;
  const auto attend = full && busy(64) && SharedBytes<4>(8) <= SharedLimit(k)
                          ? LaunchAttend<4, true>
                      : full && busy(32) ? LaunchAttend<2, true>
                      : full             ? LaunchAttend<1, true>
                                         : LaunchAttend<1, false>;

  const int64_t slot_floats = p.pieces == 1 ? 0 : p.pieces * heads * (dim + 2);
  const int64_t at_once =
      p.pieces == 1 ? slots
                    : std::min(slots, std::max<int64_t>(1, kMaxWorkspace / 4 / slot_floats));
  if (slots > 0 && p.pieces > 1) {
    p.parts = static_cast<float*>(k.device()->Workspace(4 * at_once * slot_floats));
    if (p.parts == nullptr) return;  // the device keeps the error
    p.parts_stat = reinterpret_cast<float2*>(p.parts + at_once * p.pieces * heads * dim);
  }
  p.whole = many ? tokens : 0;
  do {
    const int64_t now = std::min(at_once, slots - p.first_slot);
    attend(k, p, p.whole + now * p.pieces);
    if (p.pieces > 1) {
      Launch(k, "sparse_attention", Combine,
             dim3(static_cast<uint32_t>(now), static_cast<uint32_t>(heads)),
             dim3(static_cast<uint32_t>(dim / 4)), 0, p);
    }
    p.first_slot += now;
    p.whole = 0;
  } while (p.first_slot < slots);
}

}  // namespace seacliff::sparse_attention
