// cpu row of sparse_attention.
//
// A token goes through three passes: the scores of every key, their weights, and the output slice
// by slice of 64 values. Keys are decoded where they are used, in tiles that stay in the first
// cache. Passes are made of pieces that write only their own outputs, so it changes nothing whether
// one thread takes a token as a whole (prefill) or all threads share its pieces (decode).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse_attention/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <vector>

#include "kernels/common/attention-inl.h"
#include "kernels/sparse_attention/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::sparse_attention {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

inline constexpr int64_t kTile = 64;  // keys; also the length of the partial sums over keys

// Heads and vectors of a slice whose sums over keys fill the registers.
inline constexpr int kHeadBlock = 4;
inline constexpr int kValueVecs = hn::MaxLanes(F32()) == 8 ? 2 : 4;

// out[h][i] (+)= sum_key weights[key][h] values[key][i] for kHeadBlock heads and kValueVecs vectors
// of a slice, keys in ascending order.
HWY_INLINE void BlockValues(const float* HWY_RESTRICT weights, int64_t heads,
                            const float* HWY_RESTRICT values, int64_t count, bool add,
                            float* HWY_RESTRICT out) {
  VF sum[kHeadBlock][kValueVecs];
#pragma GCC unroll 4
  for (int h = 0; h < kHeadBlock; ++h) {
#pragma GCC unroll 4
    for (int v = 0; v < kValueVecs; ++v) sum[h][v] = hn::Zero(kF32);
  }
  for (int64_t n = 0; n < count; ++n) {
    VF value[kValueVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kValueVecs; ++v) {
      value[v] = hn::Load(kF32, values + n * kSlice + v * Lanes());
    }
#pragma GCC unroll 4
    for (int h = 0; h < kHeadBlock; ++h) {
      const VF weight = hn::Set(kF32, weights[n * heads + h]);
#pragma GCC unroll 4
      for (int v = 0; v < kValueVecs; ++v) sum[h][v] = hn::MulAdd(weight, value[v], sum[h][v]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < kHeadBlock; ++h) {
#pragma GCC unroll 4
    for (int v = 0; v < kValueVecs; ++v) {
      float* to = out + h * kSlice + v * Lanes();
      hn::Store(add ? hn::Add(hn::Load(kF32, to), sum[h][v]) : sum[h][v], kF32, to);
    }
  }
}

// One token: its keys, and what its passes leave for one another.
class Token {
 public:
  void Begin(const SparseAttentionArgs& a, int64_t t);

  int64_t tiles() const { return (static_cast<int64_t>(keys_.size()) + kTile - 1) / kTile; }
  int64_t slices() const { return dim_ / kSlice; }

  // The passes; the pieces of one are independent of each other.
  void Scores(int64_t tile);
  void Weights(int64_t tile);
  void Values(int64_t slice);

 private:
  // The keys of a tile.
  struct Range {
    int64_t begin, count;
  };
  Range TileAt(int64_t tile) const {
    const int64_t begin = tile * kTile;
    return {begin, std::min(kTile, static_cast<int64_t>(keys_.size()) - begin)};
  }
  void Gather();
  VF Top(int64_t h) const;
  VF InverseSum(int64_t h) const;

  const SparseAttentionArgs* a_ = nullptr;
  int64_t t_ = 0, heads_ = 0, dim_ = 0;  // heads padded to whole units
  std::vector<EntryRow> keys_;
  Scratch memory_;
  float* q_ = nullptr;       // [dim, heads]
  float* scores_ = nullptr;  // [tiles * kTile, heads]; later the weights
  float* tops_ = nullptr;    // [tiles, heads], largest scores
  float* sums_ = nullptr;    // [tiles, heads], sums of exponentials
  float* sinks_ = nullptr;   // [heads]
};

// Lists the keys in the order of the contract.
void Token::Gather() {
  const SparseAttentionArgs& a = *a_;
  const int64_t position = a.batch.positions(t_), seq = a.batch.seq_of(t_);
  keys_.clear();
  for (int64_t p = std::max<int64_t>(0, position - a.window_len + 1); p <= position; ++p) {
    const int64_t page = a.batch.window_pages(seq, p / kPageTokens);
    keys_.push_back(KvRow(a.window, page, p % kPageTokens));
  }
  if (a.ratio == 0) return;
  const auto append = [&](int64_t j) {
    const int64_t page = a.batch.compressed_pages(seq, j * a.ratio / kPageTokens);
    keys_.push_back(KvRow(a.compressed, page, j % a.compressed.page_len));
  };
  if (a.picks) {
    for (int64_t i = 0; i < a.picks.shape[1]; ++i) {
      if (a.picks(t_, i) >= 0) append(a.picks(t_, i));
    }
  } else {
    for (int64_t j = 0; j < (position + 1) / a.ratio; ++j) append(j);
  }
}

void Token::Begin(const SparseAttentionArgs& a, int64_t t) {
  a_ = &a;
  t_ = t;
  dim_ = a.q.shape[2];
  heads_ = PaddedHeads(a.q.shape[1]);
  Gather();
  q_ = memory_.Floats(heads_ * (dim_ + tiles() * (kTile + 2) + 1));
  scores_ = q_ + heads_ * dim_;
  tops_ = scores_ + heads_ * tiles() * kTile;
  sums_ = tops_ + heads_ * tiles();
  sinks_ = sums_ + heads_ * tiles();
  const int64_t heads = a.q.shape[1];
  TransposeHeads(static_cast<const Bf16*>(a.q.data) + t * heads * dim_, heads, dim_, q_);
  for (int64_t h = 0; h < heads_; ++h) sinks_[h] = h < heads ? a.sink(h) : 0.0f;
}

void Token::Scores(int64_t tile) {
  alignas(64) float keys[kTile * kSlice];
  const auto [begin, count] = TileAt(tile);
  float* scores = scores_ + begin * heads_;
  const int64_t padding = (count + kKeyBlock - 1) / kKeyBlock * kKeyBlock - count;
  std::memset(keys + count * kSlice, 0, static_cast<size_t>(padding * kSlice) * sizeof(float));
  for (int64_t g = 0; g < slices(); ++g) {
    LoadKvSlice(keys_.data() + begin, count, dim_, g, keys);
    KeyProducts(q_ + g * kSlice * heads_, heads_, keys, count, kSlice, g > 0, scores);
  }
  const VF scale = hn::Set(kF32, a_->scale);
  for (int64_t h = 0; h < heads_; h += Lanes()) {
    VF top = hn::Set(kF32, -INFINITY);
    for (int64_t n = 0; n < count; ++n) {
      const VF score = hn::Mul(hn::Load(kF32, scores + n * heads_ + h), scale);
      hn::Store(score, kF32, scores + n * heads_ + h);
      top = hn::Max(top, score);
    }
    hn::Store(top, kF32, tops_ + tile * heads_ + h);
  }
}

// The largest scores of the heads from h on.
HWY_INLINE VF Token::Top(int64_t h) const {
  VF top = hn::Load(kF32, tops_ + h);
  for (int64_t i = 1; i < tiles(); ++i) top = hn::Max(top, hn::Load(kF32, tops_ + i * heads_ + h));
  return top;
}

void Token::Weights(int64_t tile) {
  const auto [begin, count] = TileAt(tile);
  for (int64_t h = 0; h < heads_; h += Lanes()) {
    const VF top = Top(h);
    VF sum = hn::Zero(kF32);
    for (int64_t n = begin; n < begin + count; ++n) {
      float* at = scores_ + n * heads_ + h;
      const VF e = hn::Exp(kF32, hn::Sub(hn::Load(kF32, at), top));
      sum = hn::Add(sum, e);
      hn::Store(RoundBf16(e), kF32, at);
    }
    hn::Store(sum, kF32, sums_ + tile * heads_ + h);
  }
}

// What the weighted sums of the heads from h on are divided by, inverted.
HWY_INLINE VF Token::InverseSum(int64_t h) const {
  // A sink so far above every key that f32 cannot hold it leaves nothing of the keys.
  const VF above = hn::Sub(hn::Load(kF32, sinks_ + h), Top(h));
  const VF most = hn::Set(kF32, 88.0f);
  VF sum = hn::IfThenElse(hn::Gt(above, most), hn::Set(kF32, INFINITY),
                          hn::Exp(kF32, hn::Min(above, most)));
  for (int64_t i = 0; i < tiles(); ++i) {
    sum = hn::Add(sum, hn::Load(kF32, sums_ + i * heads_ + h));
  }
  return hn::Div(hn::Set(kF32, 1.0f), sum);
}

void Token::Values(int64_t slice) {
  static thread_local Scratch scratch;
  float* out = scratch.Floats(heads_ * (kSlice + 1));
  float* inverse = out + heads_ * kSlice;
  const int64_t heads = a_->q.shape[1];
  alignas(64) float values[kTile * kSlice];
  for (int64_t i = 0; i < tiles(); ++i) {
    const auto [begin, count] = TileAt(i);
    LoadKvSlice(keys_.data() + begin, count, dim_, slice, values);
    for (int64_t h = 0; h < heads; h += kHeadBlock) {
      for (int64_t v = 0; v < kSlice; v += kValueVecs * Lanes()) {
        BlockValues(scores_ + begin * heads_ + h, heads_, values + v, count, i > 0,
                    out + h * kSlice + v);
      }
    }
  }
  for (int64_t h = 0; h < heads_; h += Lanes()) hn::Store(InverseSum(h), kF32, inverse + h);
  for (int64_t h = 0; h < heads; ++h) {
    const VF factor = hn::Set(kF32, inverse[h]);
    for (int64_t i = h * kSlice; i < (h + 1) * kSlice; i += Lanes()) {
      hn::Store(RoundBf16(hn::Mul(hn::Load(kF32, out + i), factor)), kF32, out + i);
    }
  }
  if (slice == slices() - 1) {
    const Rotation back(a_->frequencies.data, a_->batch.positions(t_), -1);
    for (int64_t h = 0; h < heads; ++h) back.Apply(out + h * kSlice);
  }
  auto* to = static_cast<Bf16*>(a_->out.data) + t_ * heads * dim_ + slice * kSlice;
  for (int64_t h = 0; h < heads; ++h) StoreRow(out + h * kSlice, kSlice, to + h * dim_);
}

// Each thread takes tokens as a whole.
void ManyTokens(Context& k, const SparseAttentionArgs& a) {
  k.pool().For(a.q.shape[0], 1, [&](int64_t begin, int64_t end) {
    static thread_local Token token;
    for (int64_t t = begin; t < end; ++t) {
      token.Begin(a, t);
      for (int64_t i = 0; i < token.tiles(); ++i) token.Scores(i);
      for (int64_t i = 0; i < token.tiles(); ++i) token.Weights(i);
      for (int64_t i = 0; i < token.slices(); ++i) token.Values(i);
    }
  });
}

// All threads share one token.
void OneToken(Context& k, const SparseAttentionArgs& a, int64_t t) {
  static thread_local Token memory;
  Token& token = memory;  // the caller's, for all threads
  token.Begin(a, t);
  const auto pass = [&](int64_t pieces, int64_t grain, void (Token::*piece)(int64_t)) {
    k.pool().For(pieces, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) (token.*piece)(i);
    });
  };
  pass(token.tiles(), 1, &Token::Scores);
  // Waking threads costs as much as ten thousand exponentials.
  const bool few = token.tiles() * a.q.shape[1] <= 256;
  pass(token.tiles(), few ? token.tiles() : 1, &Token::Weights);
  pass(token.slices(), 1, &Token::Values);
}

void Run(Context& k, const SparseAttentionArgs& a) {
  const int64_t tokens = a.q.shape[0];
  if (tokens >= 4 * k.pool().threads()) return ManyTokens(k, a);
  for (int64_t t = 0; t < tokens; ++t) OneToken(k, a, t);
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::sparse_attention
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::sparse_attention {

HWY_EXPORT(Run);

bool CpuTakes(const SparseAttentionArgs& a) {
  return !a.q.exact() && a.window.format == EntryFormat::kKvFp8 &&
         (a.ratio == 0 || a.compressed.format == EntryFormat::kKvFp8) && a.q.shape[2] % 64 == 0 &&
         a.q.shape[2] > 64 && a.frequencies.shape[0] == 32;
}
void Cpu(Context& k, const SparseAttentionArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::sparse_attention
#endif
