// cpu row of mhc_head.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mhc_head/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/mhc-inl.h"
#include "kernels/mhc_head/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::mhc_head {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

// Up to so many rows are taken block by block, with all threads even for one of them.
constexpr int64_t kFew = 16;

Bf16* StreamsOf(const MhcHeadArgs& a, int64_t t) {
  return static_cast<Bf16*>(a.streams.data) + t * kStreams * a.streams.shape[2];
}

void Post(const MhcHeadArgs& a, int64_t t, const Columns& columns) {
  alignas(64) float x[kStreams * kPiece];
  const int64_t dim = a.x.shape[1];
  const auto* y = static_cast<const Bf16*>(a.y.data) + t * dim;
  PostBlock<true>(columns, StreamsOf(a, t), dim, y, &a.mix(t, 0), x, kPiece);
}

// A block of row r.
float Load(const MhcHeadArgs& a, int64_t r, const Columns& columns, float* x, int64_t stride) {
  Bf16* streams = StreamsOf(a, a.rows(r));
  return PostBlock<false>(columns, streams, a.x.shape[1], nullptr, nullptr, x, stride);
}

// Row r of x, from its sums: so many parts, `stride` floats from one to the next.
void Finish(const MhcHeadArgs& a, int64_t r, const float* sums, int64_t parts, int64_t stride) {
  const int64_t dim = a.x.shape[1];
  float total[kSlot] = {};
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < kSlot; ++i) total[i] += sums[part * stride + i];
  }
  const float mean = total[kSquares] / static_cast<float>(kStreams * dim);
  const float norm = 1.0f / std::sqrt(mean + a.norm_eps);
  alignas(64) float w[kLaneStep] = {};
  for (int64_t i = 0; i < kStreams; ++i) w[i] = total[i] * norm * a.hc.scale(0) + a.hc.base(i);
  hn::Store(hn::Add(Sigmoid(hn::Load(kF32, w)), hn::Set(kF32, a.hc_eps)), kF32, w);
  auto* x = static_cast<Bf16*>(a.x.data) + r * dim;
  Collapse(StreamsOf(a, a.rows(r)), dim, w, a.weight.data, a.norm_eps, x);
}

void PostAll(ThreadPool& pool, const MhcHeadArgs& a) {
  const int64_t blocks = Blocks(a.x.shape[1]);
  pool.For(a.streams.shape[0] * blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) Post(a, i / blocks, Columns(i % blocks, a.x.shape[1]));
  });
}

void RunByPieces(ThreadPool& pool, const MhcHeadArgs& a) {
  const int64_t rows = a.rows.shape[0], dim = a.x.shape[1], width = kStreams * dim;
  const int64_t blocks = Blocks(dim), stride = rows * kSlot;
  thread_local std::vector<float> values, parts;
  values.resize(std::max(values.size(), static_cast<size_t>(rows * width)));
  parts.assign(static_cast<size_t>(blocks * kStreams * stride), 0.0f);
  float *x = values.data(), *sums = parts.data();
  pool.For(blocks * rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t r = i / blocks;
      const Columns columns(i % blocks, dim);
      float* slot = sums + i % blocks * kStreams * stride + r * kSlot;
      slot[kSquares] = Load(a, r, columns, x + r * width + columns.begin, dim);
    }
  });
  DotByPieces<kStreams>(pool, static_cast<const float*>(a.hc.fn.data), dim, rows, x, sums);
  pool.For(rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      Finish(a, r, sums + r * kSlot, blocks * kStreams, stride);
    }
  });
}

void RunByTokens(ThreadPool& pool, const MhcHeadArgs& a) {
  pool.For(a.rows.shape[0], kTileTokens, [&](int64_t begin, int64_t end) {
    float sums[kTileTokens * kSlot] = {};
    DotByTokens<kStreams>(
        static_cast<const float*>(a.hc.fn.data), a.x.shape[1], end - begin,
        [&](int64_t r, const Columns& columns, float* x, int64_t stride) {
          return Load(a, begin + r, columns, x, stride);
        },
        sums);
    for (int64_t r = begin; r < end; ++r) Finish(a, r, sums + (r - begin) * kSlot, 1, 0);
  });
}

void Run(Context& k, const MhcHeadArgs& a) {
  if (a.y) PostAll(k.pool(), a);
  if (a.rows.shape[0] <= kFew) {
    RunByPieces(k.pool(), a);
  } else {
    RunByTokens(k.pool(), a);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::mhc_head
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::mhc_head {

HWY_EXPORT(Run);

bool CpuTakes(const MhcHeadArgs& a) {
  return !a.x.exact() && a.streams.shape[1] == 4 && a.x.shape[1] % 16 == 0 &&
         a.hc.fn.format == WeightFormat::kF32;
}
void Cpu(Context& k, const MhcHeadArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::mhc_head
#endif
