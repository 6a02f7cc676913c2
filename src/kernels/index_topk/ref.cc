// Reference row of index_topk.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/common/codec.h"
#include "kernels/index_topk/op.h"

namespace seacliff::index_topk {
namespace {

void Scores(const IndexTopkArgs& a, int64_t t, std::vector<float>& scores) {
  const int64_t heads = a.q.shape[1], dim = a.q.shape[2];
  const bool exact = a.q.exact();
  const auto round = [exact](double v) {
    const auto f = static_cast<float>(v);
    return exact ? f : RoundToBf16(f);
  };
  std::vector<float> q(static_cast<size_t>(heads * dim)), key(static_cast<size_t>(dim));
  std::vector<float> weights(static_cast<size_t>(heads));
  for (size_t i = 0; i < q.size(); ++i) q[i] = a.q.Load(t * heads * dim + static_cast<int64_t>(i));
  const double scale =
      1.0 / std::sqrt(static_cast<double>(dim)) / std::sqrt(static_cast<double>(heads));
  for (int64_t h = 0; h < heads; ++h) {
    weights[static_cast<size_t>(h)] = round(a.weights.Load(t * heads + h) * scale);
  }
  const int64_t seq = a.batch.seq_of(t);
  for (int64_t j = 0; j < static_cast<int64_t>(scores.size()); ++j) {
    const int32_t page = a.batch.compressed_pages(seq, j * a.ratio / kPageTokens);
    LoadEntry(a.entries, page, j % a.entries.page_len, key.data());
    double sum = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const float dot = round(Dot(q.data() + h * dim, key.data(), dim));
      sum += round(std::max(dot, 0.0f) * static_cast<double>(weights[static_cast<size_t>(h)]));
    }
    scores[static_cast<size_t>(j)] = round(sum);
  }
}

float Margin(const std::vector<float>& scores, const std::vector<int32_t>& order, int64_t count) {
  float largest = 0;
  for (const float s : scores) largest = std::max(largest, std::fabs(s));
  const float last = scores[static_cast<size_t>(order[static_cast<size_t>(count - 1)])];
  const float next = scores[static_cast<size_t>(order[static_cast<size_t>(count)])];
  return largest > 0 ? (last - next) / largest : 0;
}

}  // namespace

void Ref(Context& k, const IndexTopkArgs& a) {
  const int64_t topk = a.picks.shape[1];
  k.pool().For(a.q.shape[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t visible = (a.batch.positions(t) + 1) / a.ratio;
      const int64_t count = std::min(visible, topk);
      std::vector<int32_t> order(static_cast<size_t>(visible));
      std::iota(order.begin(), order.end(), 0);
      if (a.margin) a.margin(t) = INFINITY;
      if (visible > topk) {
        std::vector<float> scores(static_cast<size_t>(visible));
        Scores(a, t, scores);
        std::partial_sort(order.begin(), order.begin() + count + 1, order.end(),
                          [&](int32_t x, int32_t y) {
                            const float sx = scores[static_cast<size_t>(x)];
                            const float sy = scores[static_cast<size_t>(y)];
                            return sx != sy ? sx > sy : x < y;
                          });
        if (a.margin) a.margin(t) = Margin(scores, order, count);
        std::sort(order.begin(), order.begin() + count);
      }
      for (int64_t i = 0; i < topk; ++i) {
        a.picks(t, i) = i < count ? order[static_cast<size_t>(i)] : -1;
      }
    }
  });
}

}  // namespace seacliff::index_topk
