// cpu row of mhc_boundary.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/mhc_boundary/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/mhc-inl.h"
#include "kernels/mhc_boundary/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::mhc_boundary {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

constexpr int64_t kMixed = kStreams * kStreams;   // values of C
constexpr int64_t kRows = 2 * kStreams + kMixed;  // of fn
constexpr int64_t kMixWidth = kStreams + kMixed;

// Tokens that are mixed at the same time, one in each lane.
constexpr int64_t kGroup = 16;

Bf16* StreamsOf(const MhcBoundaryArgs& a, int64_t t) {
  return static_cast<Bf16*>(a.streams.data) + t * kStreams * a.streams.shape[2];
}

float Post(const MhcBoundaryArgs& a, int64_t t, const Columns& columns, float* x, int64_t stride) {
  const int64_t dim = a.x.shape[1];
  Bf16* streams = StreamsOf(a, t);
  if (!a.y) return PostBlock<false>(columns, streams, dim, nullptr, nullptr, x, stride);
  const auto* y = static_cast<const Bf16*>(a.y.data) + t * dim;
  return PostBlock<true>(columns, streams, dim, y, &a.mix(t, 0), x, stride);
}

// c[j * kStreams + k]: of kGroup tokens side by side, as all arrays here.
void Sinkhorn(float (*c)[kGroup], int64_t lane, float eps, int64_t iters) {
  const VF small = hn::Set(kF32, eps), one = hn::Set(kF32, 1.0f);
  VF m[kMixed];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMixed; ++i) m[i] = hn::Load(kF32, c[i] + lane);
  const auto scale = [&](int64_t first, int64_t step) HWY_ATTR {
    const VF sum = hn::Add(hn::Add(m[first], m[first + step]),
                           hn::Add(m[first + 2 * step], m[first + 3 * step]));
    const VF inverse = hn::Div(one, hn::Add(sum, small));
    for (int64_t i = 0; i < kStreams; ++i) {
      m[first + i * step] = hn::Mul(m[first + i * step], inverse);
    }
  };
#pragma GCC unroll 4
  for (int64_t j = 0; j < kStreams; ++j) {
    VF* row = m + j * kStreams;
    const VF top = hn::Max(hn::Max(row[0], row[1]), hn::Max(row[2], row[3]));
#pragma GCC unroll 4
    for (int64_t k = 0; k < kStreams; ++k) row[k] = hn::Exp(kF32, hn::Sub(row[k], top));
    const VF sum = hn::Add(hn::Add(row[0], row[1]), hn::Add(row[2], row[3]));
    const VF inverse = hn::Div(one, sum);
#pragma GCC unroll 4
    for (int64_t k = 0; k < kStreams; ++k) row[k] = hn::MulAdd(row[k], inverse, small);
  }
  for (int64_t i = 0; i < iters; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; i > 0 && j < kStreams; ++j) scale(j * kStreams, 1);
#pragma GCC unroll 4
    for (int64_t k = 0; k < kStreams; ++k) scale(k, kStreams);
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMixed; ++i) hn::Store(m[i], kF32, c[i] + lane);
}

// pre, post and C of kGroup tokens at most, from their sums. `parts` slots for each, `stride`
// floats from one to the next, are added up.
void Mix(const MhcBoundaryArgs& a, int64_t tokens, const float* sums, int64_t parts, int64_t stride,
         float (*m)[kGroup]) {
  const float width = static_cast<float>(kStreams * a.x.shape[1]);
  for (int64_t t = 0; t < tokens; ++t) {
    alignas(64) float total[kSlot];
    for (int64_t i = 0; i < kSlot; i += Lanes()) {
      VF sum = hn::Zero(kF32);
      for (int64_t part = 0; part < parts; ++part) {
        sum = hn::Add(sum, hn::LoadU(kF32, sums + t * kSlot + part * stride + i));
      }
      hn::Store(sum, kF32, total + i);
    }
    const float norm = 1.0f / std::sqrt(total[kSquares] / width + a.norm_eps);
    for (int64_t i = 0; i < kRows; ++i) {
      const float scale = a.hc.scale(i < kStreams ? 0 : i < 2 * kStreams ? 1 : 2);
      m[i][t] = total[i] * norm * scale + a.hc.base(i);
    }
  }
  const VF small = hn::Set(kF32, a.hc_eps), two = hn::Set(kF32, 2.0f);
  for (int64_t lane = 0; lane < tokens; lane += Lanes()) {
    for (int64_t i = 0; i < kStreams; ++i) {
      float *pre = m[i] + lane, *post = m[kStreams + i] + lane;
      hn::Store(hn::Add(Sigmoid(hn::Load(kF32, pre)), small), kF32, pre);
      hn::Store(hn::Mul(two, Sigmoid(hn::Load(kF32, post))), kF32, post);
    }
    Sinkhorn(m + 2 * kStreams, lane, a.hc_eps, a.iters);
  }
}

// What follows the sums, for tokens begin .. end, kGroup at most.
void Finish(const MhcBoundaryArgs& a, int64_t begin, int64_t end, const float* sums, int64_t parts,
            int64_t stride) {
  const int64_t dim = a.x.shape[1];
  alignas(64) float m[kRows][kGroup] = {};
  Mix(a, end - begin, sums, parts, stride, m);
  for (int64_t t = begin; t < end; ++t) {
    float pre[kStreams];
    for (int64_t i = 0; i < kStreams; ++i) pre[i] = m[i][t - begin];
    for (int64_t i = 0; i < kMixWidth; ++i) a.mix(t, i) = m[kStreams + i][t - begin];
    Collapse(StreamsOf(a, t), dim, pre, a.weight.data, a.norm_eps,
             static_cast<Bf16*>(a.x.data) + t * dim);
  }
}

void RunByPieces(ThreadPool& pool, const MhcBoundaryArgs& a) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1], width = kStreams * dim;
  const int64_t blocks = Blocks(dim), stride = tokens * kSlot;
  thread_local std::vector<float> values, parts;
  values.resize(std::max(values.size(), static_cast<size_t>(tokens * width)));
  parts.assign(static_cast<size_t>(blocks * kStreams * stride), 0.0f);
  float *x = values.data(), *sums = parts.data();
  pool.For(blocks * tokens, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / blocks;
      const Columns columns(i % blocks, dim);
      float* slot = sums + i % blocks * kStreams * stride + t * kSlot;
      slot[kSquares] = Post(a, t, columns, x + t * width + columns.begin, dim);
    }
  });
  DotByPieces<kRows>(pool, static_cast<const float*>(a.hc.fn.data), dim, tokens, x, sums);
  pool.For(tokens, 4, [&](int64_t begin, int64_t end) {
    Finish(a, begin, end, sums + begin * kSlot, blocks * kStreams, stride);
  });
}

void RunByTokens(ThreadPool& pool, const MhcBoundaryArgs& a) {
  const int64_t tokens = a.x.shape[0];
  // The more tokens, the more of them share what is read of fn.
  const int64_t grain = std::clamp(tokens / 32 * kTileTokens, kTileTokens, kGroup);
  pool.For(tokens, grain, [&](int64_t begin, int64_t end) {
    float sums[kGroup * kSlot] = {};
    DotByTokens<kRows>(
        static_cast<const float*>(a.hc.fn.data), a.x.shape[1], end - begin,
        [&](int64_t t, const Columns& columns, float* x, int64_t stride) {
          return Post(a, begin + t, columns, x, stride);
        },
        sums);
    Finish(a, begin, end, sums, 1, 0);
  });
}

void Run(Context& k, const MhcBoundaryArgs& a) {
  if (a.x.shape[0] <= kGroup) {
    RunByPieces(k.pool(), a);
  } else {
    RunByTokens(k.pool(), a);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::mhc_boundary
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::mhc_boundary {

HWY_EXPORT(Run);

bool CpuTakes(const MhcBoundaryArgs& a) {
  return !a.x.exact() && a.streams.shape[1] == 4 && a.x.shape[1] % 16 == 0 &&
         a.hc.fn.format == WeightFormat::kF32;
}
void Cpu(Context& k, const MhcBoundaryArgs& a) { HWY_DYNAMIC_DISPATCH(Run)(k, a); }

}  // namespace seacliff::mhc_boundary
#endif
