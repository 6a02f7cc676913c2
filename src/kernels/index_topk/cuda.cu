// cuda row of index_topk: scores of the visible blocks on tensor cores into f32 scratch memory,
// then an exact selection. Tokens that see no more than topk blocks are not scored.
#include <cmath>

#include "kernels/common/cuda.cuh"
#include "kernels/index_topk/op.h"
#include "kernels/index_topk/select.cuh"

namespace seacliff::index_topk {
namespace {

using namespace cuda;  // NOLINT: the frame of every CUDA row

constexpr int kPage = 32;           // keys of a page
constexpr int kGroup = kCudaGroup;  // tokens that keys in registers serve, in a prefill
constexpr int kGroupWarps = 8;      // pages of a block, in a prefill
constexpr int kTokenWarps = 4;      // the same, of one token
constexpr int kGroupThreads = kGroupWarps * kWarp;
constexpr int kTokenThreads = kTokenWarps * kWarp;
constexpr int kTokenBlocks = 3;  // of a multiprocessor

// ---- types ----

struct Params {
  const Bf16 *q, *weights;
  const int32_t *positions, *seq_of, *pages;
  const int32_t *step_positions, *seq_begin;  // of all tokens, and sequences
  int64_t pages_stride;
  const std::byte* entries;
  int64_t page_bytes, page_count;
  float* scores;
  int64_t score_stride;
  int32_t tokens, heads, tiles;  // tiles of 8 heads, an even number
  int32_t ratio, topk;
  float scale;
};

// A warp scores a page of 32 keys, whose products with all heads stay in registers. The order of
// the inner dimension is free as long as both factors agree: lane t of four holds the quarter t of
// a key as it is stored, and the same quarter of a query.

// A page of keys as stored: of keys g, g + 8, g + 16, g + 24 the lane's quarter, g = lane / 4.
template <int kWords>
struct Stored {
  uint32_t words[4][kWords];  // of 8 values each
  uint8_t scales[4];
};

// The same as factors: 16 keys by 16 values for each tile of rows and step.
template <int kWords>
struct Keys {
  uint32_t a[2][2 * kWords][4];
};

// ---- load ----

template <int kWords>
__device__ Stored<kWords> LoadKeys(const Params& a, int64_t page, int lane) {
  Stored<kWords> stored = {};
  if (page < 0 || page >= a.page_count) return stored;
  constexpr int kRow = 16 * kWords;
  const std::byte* base = a.entries + page * a.page_bytes;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int key = 8 * r + lane / 4, quarter = lane % 4;
    const std::byte* from = base + key * kRow + quarter * 4 * kWords;
    if constexpr (kWords == 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(from);
      stored.words[r][0] = v.x;
      stored.words[r][1] = v.y;
      stored.words[r][2] = v.z;
      stored.words[r][3] = v.w;
    } else {
      const uint2 v = *reinterpret_cast<const uint2*>(from);
      stored.words[r][0] = v.x;
      stored.words[r][1] = v.y;
    }
    const auto* scales = reinterpret_cast<const uint8_t*>(base + kPage * kRow);
    stored.scales[r] = scales[key * kWords + quarter * kWords / 4];
  }
  return stored;
}

// Eight e2m1 values times 2^(scale - 127) as four pairs of bf16, values i and i + 4, exact. The
// bits of an e2m1 are those of a bf16 that is 2^-126 of it, its subnormal included.
__device__ void Decode(uint32_t word, uint32_t factor, uint32_t (&pairs)[4]) {
  const uint32_t bits[4] = {(word << 6 & 0x01c001c0u) | (word << 12 & 0x80008000u),
                            (word << 2 & 0x01c001c0u) | (word << 8 & 0x80008000u),
                            (word >> 2 & 0x01c001c0u) | (word << 4 & 0x80008000u),
                            (word >> 6 & 0x01c001c0u) | (word & 0x80008000u)};
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = Times(Times(bits[i], 0x7e807e80u), factor);  // 2^126 first
}

// Of four words, the halves of the first and the third, then of the second and the fourth, in
// pairs: eight values in their order become those that Decode pairs.
__device__ uint4 Regroup(const uint4& v) {
  return make_uint4(__byte_perm(v.x, v.z, 0x5410), __byte_perm(v.x, v.z, 0x7632),
                    __byte_perm(v.y, v.w, 0x5410), __byte_perm(v.y, v.w, 0x7632));
}

// kRegroup: in the order of the queries as they are, else in that of regrouped ones.
template <int kWords, bool kRegroup>
__device__ void DecodeKeys(const Stored<kWords>& stored, Keys<kWords>& keys) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const uint32_t scale = stored.scales[r], factor = (scale == 0 ? 0x40u : scale << 7) * 0x10001u;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      uint32_t pairs[4];
      Decode(stored.words[r][w], factor, pairs);
      if constexpr (kRegroup) {
        const uint32_t far[4] = {pairs[0], pairs[1], pairs[2], pairs[3]};
        pairs[0] = __byte_perm(far[0], far[1], 0x5410);
        pairs[1] = __byte_perm(far[2], far[3], 0x5410);
        pairs[2] = __byte_perm(far[0], far[1], 0x7632);
        pairs[3] = __byte_perm(far[2], far[3], 0x7632);
      }
      keys.a[r / 2][2 * w][r % 2] = pairs[0];
      keys.a[r / 2][2 * w][r % 2 + 2] = pairs[1];
      keys.a[r / 2][2 * w + 1][r % 2] = pairs[2];
      keys.a[r / 2][2 * w + 1][r % 2 + 2] = pairs[3];
    }
  }
}

// Eight values of a token's queries that this lane takes to shared memory, where they stand in the
// order in which Score reads them: tile of 8 heads, word, lane. Each warp reads whole rows; i: the
// tile and the word.
template <int kWords>
struct QueryPart {
  int64_t from, stride;  // of a token
  int32_t to;
  bool there;  // else zeros

  __device__ QueryPart(const Params& a, int i) {
    constexpr int kHeads = 8 / kWords;  // of a warp at a time
    const int lane = threadIdx.x % kWarp, quarter = lane % 4, w = lane / (4 * kHeads);
    const int head = i * kHeads + lane / 4 % kHeads;
    there = head < a.heads;
    stride = int64_t{a.heads} * 32 * kWords;
    from = int64_t{there ? head : 0} * 32 * kWords + (quarter * kWords + w) * 8;
    to = (head / 8 * kWords + w) * kWarp + head % 8 * 4 + quarter;
  }
};

// A token's queries, in the background.
template <int kWords>
__device__ void CopyQueries(const Params& a, int64_t token, uint4* shared) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < a.tiles * kWords; i += warps) {
    const QueryPart<kWords> part(a, i);
    CopyAsync16(shared + part.to, a.q + token * part.stride + part.from, part.there);
  }
}

// ---- compute ----

// The score of key 8 (lane % 4) + lane / 4 of the page. The order of the sum is the same for every
// key, so that equal keys get equal scores.
template <int kWords>
__device__ float Score(const Keys<kWords>& keys, const uint4* q, const float* weights, int tiles) {
  const int lane = threadIdx.x % kWarp;
  float sums[4] = {};  // of keys lane / 4 + 8 i
  for (int n = 0; n < tiles; n += 2) {
    float d[2][2][4] = {};  // tile of heads, tile of keys
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint4 b[2] = {q[(n * kWords + w) * kWarp + lane],
                          q[((n + 1) * kWords + w) * kWarp + lane]};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t first[2] = {b[i / 2].x, b[i / 2].y};
        MmaBf16(d[i / 2][i % 2], keys.a[i % 2][2 * w], first);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t second[2] = {b[i / 2].z, b[i / 2].w};
        MmaBf16(d[i / 2][i % 2], keys.a[i % 2][2 * w + 1], second);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 weight = *reinterpret_cast<const float2*>(weights + (n + i) * 8 + lane % 4 * 2);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float* dots = d[i][r / 2] + r % 2 * 2;
        sums[r] = fmaf(fmaxf(dots[0], 0.0f), weight.x, sums[r]);
        sums[r] = fmaf(fmaxf(dots[1], 0.0f), weight.y, sums[r]);
      }
    }
  }
  // Each of the four lanes of a key row ends with one of the four sums.
  const bool high = (lane & 2) != 0, odd = (lane & 1) != 0;
  const float first =
      (high ? sums[2] : sums[0]) + __shfl_xor_sync(0xffffffffu, high ? sums[0] : sums[2], 2);
  const float second =
      (high ? sums[3] : sums[1]) + __shfl_xor_sync(0xffffffffu, high ? sums[1] : sums[3], 2);
  const float sum = (odd ? second : first) + __shfl_xor_sync(0xffffffffu, odd ? first : second, 1);
  return sum + 0.0f;  // never -0, which is not below 0
}

// ---- store ----

__device__ void StoreScore(const Params& a, int64_t token, int64_t page, float score) {
  const int lane = threadIdx.x % kWarp;
  a.scores[token * a.score_stride + page * kPage + lane % 4 * 8 + lane / 4] = score;
}

__device__ int Visible(const Params& a, int64_t token) {
  const int visible = (a.positions[token] + 1) / a.ratio;
  return visible > a.topk ? visible : 0;
}

__device__ float Weight(const Params& a, int64_t token, int head) {
  return head < a.heads ? __fmul_rn(Load(a.weights + token * a.heads + head), a.scale) : 0.0f;
}

// ---- kernels ----

// Block (token, split): keys stream past the queries of one token.
template <int kWords>
__global__ void __launch_bounds__(kTokenThreads, kTokenBlocks) ScoreToken(Params a) {
  extern __shared__ uint4 shared[];
  LetNextStart();
  uint4* q = shared;
  auto* weights = reinterpret_cast<float*>(q + a.tiles * kWords * kWarp);

  const int64_t token = blockIdx.x;
  const int pages = (Visible(a, token) + kPage - 1) / kPage;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (static_cast<int>(blockIdx.y) * kTokenWarps >= pages) {
    WaitForEarlier();  // so that no launch after this one overtakes those before it
    return;
  }
  const int seq = a.seq_of[token];
  const int32_t* list = a.pages + seq * a.pages_stride;
  const int step = static_cast<int>(gridDim.y) * kTokenWarps;
  int page = static_cast<int>(blockIdx.y) * kTokenWarps + warp;
  // Pages without a key of this step are read ahead of the launches before.
  const int old_keys = a.step_positions[a.seq_begin[seq]] / a.ratio;
  const bool early = (page + 1) * kPage <= old_keys;
  Stored<kWords> stored = {};
  if (page < pages && early) stored = LoadKeys<kWords>(a, list[page], lane);
  WaitForEarlier();
  if (page < pages && !early) stored = LoadKeys<kWords>(a, list[page], lane);
#pragma unroll 8
  for (int i = warp; i < a.tiles * kWords; i += kTokenWarps) {
    const QueryPart<kWords> part(a, i);
    uint4 v = {};
    if (part.there) v = *reinterpret_cast<const uint4*>(a.q + token * part.stride + part.from);
    q[part.to] = Regroup(v);
  }
  for (int h = static_cast<int>(threadIdx.x); h < a.tiles * 8; h += kTokenThreads) {
    weights[h] = Weight(a, token, h);
  }
  __syncthreads();

  for (; page < pages; page += step) {
    Keys<kWords> keys;
    DecodeKeys<kWords, false>(stored, keys);
    if (page + step < pages) stored = LoadKeys<kWords>(a, list[page + step], lane);
    StoreScore(a, token, page, Score(keys, q, weights, a.tiles));
  }
}

// Tokens of a block of ScoreGroup that have something to score.
struct Group {
  int32_t visible[kGroup], seq[kGroup];
  int32_t limit[kGroup];  // what the last token of the same sequence here sees
  int32_t list[kGroup];   // the tokens
  int32_t count, most;    // their number; the most blocks that one of them sees
};

__device__ void List(const Params& a, int64_t begin, int first_block, Group& group) {
  const int i = threadIdx.x;
  if (i >= kGroup) return;
  const bool there = begin + i < a.tokens;
  const int visible = there ? Visible(a, begin + i) : 0;
  const int seq = there ? a.seq_of[begin + i] : -1;
  const uint32_t same = __match_any_sync(0xffffffffu, seq);
  const bool scored = visible > first_block;
  const uint32_t all = __ballot_sync(0xffffffffu, scored);
  group.visible[i] = visible;
  group.seq[i] = seq;
  group.limit[i] = __shfl_sync(0xffffffffu, visible, 31 - __clz(static_cast<int>(same)));
  if (scored) group.list[__popc(all & ((1u << i) - 1))] = i;
  const int most = __reduce_max_sync(0xffffffffu, visible);
  if (i == 0) {
    group.count = __popc(all);
    group.most = most;
  }
}

// Block (group of tokens, split): keys stay in registers, the queries of the tokens stream past.
template <int kWords>
__global__ void __launch_bounds__(kGroupThreads, 2) ScoreGroup(Params a) {
  constexpr int kBlockKeys = kGroupWarps * kPage;
  extern __shared__ uint4 shared[];
  const int stage = a.tiles * kWords * kWarp;
  uint4* q = shared;                                             // [2][stage]
  auto* weights = reinterpret_cast<float*>(shared + 2 * stage);  // [kGroup][tiles * 8]
  auto& group = *reinterpret_cast<Group*>(weights + kGroup * a.tiles * 8);

  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kGroup;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  List(a, begin, static_cast<int>(blockIdx.y) * kBlockKeys, group);
  __syncthreads();
  const int count = group.count;
  if (count == 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < kGroup * a.tiles * 8; i += kGroupThreads) {
    const int t = i / (a.tiles * 8);
    weights[i] = begin + t < a.tokens ? Weight(a, begin + t, i % (a.tiles * 8)) : 0.0f;
  }

  Keys<kWords> keys = {};
  int loaded = -1;  // sequence whose keys these are
  int buffer = 0;
  CopyQueries<kWords>(a, begin + group.list[0], q);
  CommitCopies();
  const int step = static_cast<int>(gridDim.y) * kBlockKeys;
  for (int first = static_cast<int>(blockIdx.y) * kBlockKeys; first < group.most; first += step) {
    const int page = first / kPage + warp;
    loaded = -1;
    for (int n = 0; n < count; ++n) {
      WaitCopies<0>();
      __syncthreads();  // these queries are there, and all have done with those before
      if (n + 1 < count || first + step < group.most) {
        const int next = group.list[n + 1 < count ? n + 1 : 0];
        CopyQueries<kWords>(a, begin + next, q + (buffer ^ 1) * stage);
        CommitCopies();
      }
      const int i = group.list[n];
      if (group.seq[i] != loaded) {
        loaded = group.seq[i];
        if (page * kPage < group.limit[i]) {
          DecodeKeys<kWords, true>(
              LoadKeys<kWords>(a, a.pages[loaded * a.pages_stride + page], lane), keys);
        }
      }
      if (page * kPage < group.visible[i]) {
        const float score = Score(keys, q + buffer * stage, weights + i * a.tiles * 8, a.tiles);
        StoreScore(a, begin + i, page, score);
      }
      buffer ^= 1;
    }
  }
}

// ---- launches ----

template <int kWords>
void ScoreAll(Context& k, const Params& a, int64_t pages, bool grouped) {
  const int64_t multiprocessors = Multiprocessors(k), queries = a.tiles * kWords * 512;
  if (grouped) {
    const int64_t groups = CeilDiv(a.tokens, kGroup);
    const int64_t shared =
        2 * queries + kGroup * a.tiles * 8 * 4 + static_cast<int64_t>(sizeof(Group));
    const int64_t split =
        std::min(CeilDiv(8 * multiprocessors, groups), CeilDiv(pages, kGroupWarps));
    Launch(k, "index_topk", ScoreGroup<kWords>,
           dim3(static_cast<uint32_t>(groups), static_cast<uint32_t>(split)), dim3(kGroupThreads),
           shared, a);
    return;
  }
  // All blocks at once, as far as they go.
  const int64_t split = std::min(std::max<int64_t>(kTokenBlocks * multiprocessors / a.tokens, 1),
                                 CeilDiv(pages, kTokenWarps));
  LaunchOverlapped(k, "index_topk", ScoreToken<kWords>,
                   dim3(static_cast<uint32_t>(a.tokens), static_cast<uint32_t>(split)),
                   dim3(kTokenThreads), queries + a.tiles * 8 * 4, a);
}

}  // namespace

void Cuda(Context& k, const IndexTopkArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  const int64_t topk = a.picks.shape[1], pages = a.batch.compressed_pages.shape[1];
  const int64_t blocks = pages * kPage;  // at most, of a sequence
  if (tokens == 0) return;
  const bool scored = blocks > topk;
  // Keys are worth keeping where several tokens of a sequence are scored.
  const bool grouped = tokens >= 16 && tokens > 2 * a.batch.seqs();
  const int64_t fits = kCudaScores / (blocks * 4 + 1) / kGroup * kGroup;
  const int64_t chunk = std::min(tokens, std::max<int64_t>(fits, kGroup));
  const int64_t bytes = CudaWorkspace(tokens, blocks, topk);
  auto* scores = scored ? static_cast<float*>(k.device()->Workspace(bytes)) : nullptr;
  if (scored && scores == nullptr) return;  // the device tells why

  Params params = {static_cast<const Bf16*>(a.q.data),
                   static_cast<const Bf16*>(a.weights.data),
                   a.batch.positions.data,
                   a.batch.seq_of.data,
                   a.batch.compressed_pages.data,
                   a.batch.positions.data,
                   a.batch.seq_begin.data,
                   a.batch.compressed_pages.stride[0],
                   a.entries.data,
                   a.entries.page_bytes(),
                   a.entries.pages,
                   scores,
                   blocks,
                   0,
                   static_cast<int32_t>(heads),
                   static_cast<int32_t>(CeilDiv(heads, 16) * 2),
                   static_cast<int32_t>(a.ratio),
                   static_cast<int32_t>(topk),
                   static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)) /
                                      std::sqrt(static_cast<double>(heads)))};
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    params.tokens = static_cast<int32_t>(std::min(chunk, tokens - begin));
    if (scored) {
      if (dim == 64) {
        ScoreAll<2>(k, params, pages, grouped);
      } else {
        ScoreAll<4>(k, params, pages, grouped);
      }
    }
    SelectAll(k, {scores, blocks, params.positions, params.ratio, params.topk, params.tokens,
                  a.picks.data + begin * a.picks.stride[0], a.picks.stride[0]});
    params.q += chunk * heads * dim;
    params.weights += chunk * heads;
    params.positions += chunk;
    params.seq_of += chunk;
  }
}

}  // namespace seacliff::index_topk
