// cpu row of index_topk. It rounds wherever ref does, so that nearly always it picks the same.
//
// Tokens go in groups of one sequence, which share the decoding of keys; a group's keys go in
// tiles. In a prefill each thread takes whole groups, else all threads share the tiles of one.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/index_topk/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "kernels/common/attention-inl.h"
#include "kernels/index_topk/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::index_topk {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

inline constexpr int64_t kTile = 64;          // keys decoded at a time
inline constexpr int64_t kPiece = 4 * kTile;  // keys of a thread's turn
inline constexpr int64_t kGroupTokens = 8;

// Consecutive tokens of one sequence.
struct Span {
  int64_t begin, end;
};

std::vector<Span> Groups(const Batch& batch) {
  std::vector<Span> groups;
  for (int64_t s = 0; s < batch.seqs(); ++s) {
    const int64_t end = batch.seq_begin(s + 1);
    for (int64_t t = batch.seq_begin(s); t < end; t += kGroupTokens) {
      groups.push_back({t, std::min(t + kGroupTokens, end)});
    }
  }
  return groups;
}

// The smallest scores that are picked, and how many of just that score.
struct Limit {
  float score;
  int64_t equal;
};

Limit Select(const float* scores, int64_t visible, int64_t topk, std::vector<float>& order) {
  order.assign(scores, scores + visible);
  std::nth_element(order.begin(), order.begin() + (topk - 1), order.end(), std::greater<>());
  const float score = order[static_cast<size_t>(topk - 1)];
  const auto above =
      std::count_if(order.begin(), order.begin() + topk, [score](float s) { return s > score; });
  return {score, topk - above};
}

class Group {
 public:
  void Begin(const IndexTopkArgs& a, Span tokens);
  int64_t blocks() const { return blocks_; }  // that some token must score
  void Scores(int64_t piece);
  void Pick();

 private:
  int64_t Visible(int64_t t) const { return (a_->batch.positions(t) + 1) / a_->ratio; }
  bool Scored(int64_t t) const { return Visible(t) > a_->picks.shape[1]; }
  void Sum(const float* products, const float* weights, int64_t count, float* scores) const;

  const IndexTopkArgs* a_ = nullptr;
  Span tokens_ = {0, 0};
  int64_t heads_ = 0, blocks_ = 0, stride_ = 0;  // heads padded; stride of the scores
  Scratch memory_;
  float* q_ = nullptr;        // [tokens, dim, heads]
  float* weights_ = nullptr;  // [tokens, heads]
  float* scores_ = nullptr;   // [tokens, stride]
  std::vector<float> order_;
};

void Group::Begin(const IndexTopkArgs& a, Span tokens) {
  a_ = &a;
  tokens_ = tokens;
  const int64_t heads = a.q.shape[1], dim = a.q.shape[2], count = tokens.end - tokens.begin;
  heads_ = PaddedHeads(heads);
  blocks_ = Scored(tokens.end - 1) ? Visible(tokens.end - 1) : 0;
  if (blocks_ == 0) return;
  stride_ = (blocks_ + kTile - 1) / kTile * kTile;
  q_ = memory_.Floats(count * (heads_ * (dim + 1) + stride_));
  weights_ = q_ + count * heads_ * dim;
  scores_ = weights_ + count * heads_;
  const double scale =
      1.0 / std::sqrt(static_cast<double>(dim)) / std::sqrt(static_cast<double>(heads));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t t = tokens.begin + i;
    TransposeHeads(static_cast<const Bf16*>(a.q.data) + t * heads * dim, heads, dim,
                   q_ + i * heads_ * dim);
    for (int64_t h = 0; h < heads_; ++h) {
      const double w = h < heads ? a.weights.Load(t * heads + h) * scale : 0.0;
      weights_[i * heads_ + h] = RoundToBf16(static_cast<float>(w));
    }
  }
}

// The scores of `count` keys from their dot products with all heads.
void Group::Sum(const float* products, const float* weights, int64_t count, float* scores) const {
  for (int64_t n = 0; n < count; ++n) {
    VF sum = hn::Zero(kF32);
    for (int64_t h = 0; h < heads_; h += Lanes()) {
      const VF dot = hn::Max(RoundBf16(hn::Load(kF32, products + n * heads_ + h)), hn::Zero(kF32));
      sum = hn::Add(sum, RoundBf16(hn::Mul(dot, hn::Load(kF32, weights + h))));
    }
    scores[n] = RoundToBf16(SumLanes(sum));
  }
}

void Group::Scores(int64_t piece) {
  const int64_t dim = a_->q.shape[2], seq = a_->batch.seq_of(tokens_.begin);
  static thread_local Scratch scratch;
  float* keys = scratch.Floats(kTile * (dim + heads_));
  float* products = keys + kTile * dim;
  const int64_t end = std::min(blocks_, (piece + 1) * kPiece);
  for (int64_t begin = piece * kPiece; begin < end; begin += kTile) {
    const int64_t count = std::min(kTile, end - begin);
    for (int64_t n = 0; n < count; ++n) {
      const int64_t page = a_->batch.compressed_pages(seq, (begin + n) * a_->ratio / kPageTokens);
      const int64_t slot = (begin + n) % a_->entries.page_len;
      LoadIndexEntry(IndexRow(a_->entries, page, slot), dim, keys + n * dim);
    }
    const int64_t padding = (count + kKeyBlock - 1) / kKeyBlock * kKeyBlock - count;
    std::memset(keys + count * dim, 0, static_cast<size_t>(padding * dim) * sizeof(float));
    for (int64_t t = tokens_.begin; t < tokens_.end; ++t) {
      // The last tokens may see a block that the first ones do not.
      const int64_t seen = std::min(count, Visible(t) - begin), i = t - tokens_.begin;
      if (seen <= 0 || !Scored(t)) continue;
      KeyProducts(q_ + i * heads_ * dim, heads_, keys, seen, dim, false, products);
      Sum(products, weights_ + i * heads_, seen, scores_ + i * stride_ + begin);
    }
  }
}

void Group::Pick() {
  const int64_t topk = a_->picks.shape[1];
  for (int64_t t = tokens_.begin; t < tokens_.end; ++t) {
    const int64_t visible = Visible(t);
    int32_t* picks = &a_->picks(t, 0);
    int64_t place = 0;
    if (!Scored(t)) {
      for (int64_t j = 0; j < visible; ++j) picks[place++] = static_cast<int32_t>(j);
      std::fill(picks + place, picks + topk, -1);
      continue;
    }
    const float* scores = scores_ + (t - tokens_.begin) * stride_;
    auto [limit, equal] = Select(scores, visible, topk, order_);
    for (int64_t j = 0; place < topk; ++j) {
      // Of equal ones the lower blocks are picked.
      const bool picked = scores[j] > limit || (scores[j] == limit && equal-- > 0);
      if (picked) picks[place++] = static_cast<int32_t>(j);
    }
  }
}

void Run(Context& k, const IndexTopkArgs& a) {
  const std::vector<Span> groups = Groups(a.batch);
  const auto pieces = [](const Group& g) { return (g.blocks() + kPiece - 1) / kPiece; };
  if (static_cast<int64_t>(groups.size()) >= 4 * k.pool().threads()) {
    k.pool().For(static_cast<int64_t>(groups.size()), 1, [&](int64_t begin, int64_t end) {
      static thread_local Group group;
      for (int64_t i = begin; i < end; ++i) {
        group.Begin(a, groups[static_cast<size_t>(i)]);
        for (int64_t p = 0; p < pieces(group); ++p) group.Scores(p);
        group.Pick();
      }
    });
    return;
  }
  static thread_local Group memory;
  Group& group = memory;  // the caller's, for all threads
  for (const Span& span : groups) {
    group.Begin(a, span);
    k.pool().For(pieces(group), 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) group.Scores(p);
    });
    group.Pick();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::index_topk
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::index_topk {

HWY_EXPORT(Run);

bool CpuTakes(const IndexTopkArgs& a) {
  return !a.q.exact() && a.entries.format == EntryFormat::kIndexFp4 && a.q.shape[2] % 32 == 0 &&
         !a.margin;
}
void Cpu(Context& k, const IndexTopkArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::index_topk
#endif
