// Reference row of sparse_attention.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/sparse_attention/op.h"

namespace seacliff::sparse_attention {
namespace {

// The keys of token t, decoded, [keys, head_dim].
void Gather(const SparseAttentionArgs& a, int64_t t, std::vector<float>& keys) {
  const int64_t dim = a.q.shape[2];
  const int64_t position = a.batch.positions(t), seq = a.batch.seq_of(t);
  keys.clear();
  const auto append = [&](const PagedView& view, int32_t page, int64_t slot) {
    keys.resize(keys.size() + static_cast<size_t>(dim));
    LoadEntry(view, page, slot, keys.data() + keys.size() - dim);
  };
  const auto append_block = [&](int64_t j) {
    append(a.compressed, a.batch.compressed_pages(seq, j * a.ratio / kPageTokens),
           j % a.compressed.page_len);
  };
  for (int64_t p = std::max<int64_t>(0, position - a.window_len + 1); p <= position; ++p) {
    append(a.window, a.batch.window_pages(seq, p / kPageTokens), p % kPageTokens);
  }
  if (a.ratio == 0) return;
  if (a.picks) {
    for (int64_t i = 0; i < a.picks.shape[1]; ++i) {
      if (a.picks(t, i) >= 0) append_block(a.picks(t, i));
    }
  } else {
    for (int64_t j = 0; j < (position + 1) / a.ratio; ++j) append_block(j);
  }
}

void Head(const SparseAttentionArgs& a, int64_t t, int64_t h, const std::vector<float>& keys,
          std::vector<double>& weights, std::vector<float>& out) {
  const int64_t dim = a.q.shape[2], heads = a.q.shape[1], pairs = a.frequencies.shape[0];
  const int64_t count = static_cast<int64_t>(keys.size()) / dim, row = (t * heads + h) * dim;
  const bool exact = a.q.exact();

  std::vector<float> q(static_cast<size_t>(dim));
  for (int64_t i = 0; i < dim; ++i) q[static_cast<size_t>(i)] = a.q.Load(row + i);
  // Scores and weights are f32 steps, as in the official code, so that bf16(p) rounds as it does
  // there.
  const auto step = [exact](double v) {
    return exact ? v : static_cast<double>(static_cast<float>(v));
  };
  weights.resize(static_cast<size_t>(count));
  double top = -INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    weights[static_cast<size_t>(i)] =
        step(step(Dot(q.data(), keys.data() + i * dim, dim)) * a.scale);
    top = std::max(top, weights[static_cast<size_t>(i)]);
  }
  // A sink far above every key only makes the denominator large; the bound keeps it finite.
  double sum = std::exp(std::min(a.sink(h) - top, 700.0));
  std::vector<double> value(static_cast<size_t>(dim), 0.0);
  for (int64_t i = 0; i < count; ++i) {
    const double e = step(std::exp(step(weights[static_cast<size_t>(i)] - top)));
    sum += e;
    const double p = exact ? e : RoundToBf16(static_cast<float>(e));
    const float* key = keys.data() + i * dim;
    for (int64_t d = 0; d < dim; ++d) value[static_cast<size_t>(d)] += p * key[d];
  }
  for (int64_t d = 0; d < dim; ++d) {
    const auto v = static_cast<float>(value[static_cast<size_t>(d)] / sum);
    out[static_cast<size_t>(d)] = exact ? v : RoundToBf16(v);
  }
  Rotate(out.data() + dim - 2 * pairs, pairs, a.frequencies.data, a.batch.positions(t), -1);
  for (int64_t d = 0; d < dim; ++d) a.out.Store(row + d, out[static_cast<size_t>(d)]);
}

}  // namespace

void Ref(Context& k, const SparseAttentionArgs& a) {
  const int64_t tokens = a.q.shape[0], heads = a.q.shape[1], dim = a.q.shape[2];
  k.pool().For(tokens, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> keys, out(static_cast<size_t>(dim));
    std::vector<double> weights;
    for (int64_t t = begin; t < end; ++t) {
      Gather(a, t, keys);
      for (int64_t h = 0; h < heads; ++h) Head(a, t, h, keys, weights, out);
    }
  });
}

}  // namespace seacliff::sparse_attention
