// cpu row of experts: tokens grouped by expert; first every expert's gate and up projections, then
// its down projection into the sums, a tile of weights at a time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/experts/cpu.cc"
#include "hwy/foreach_target.h"
// After foreach_target.h, once for each instruction set:
#include <algorithm>
#include <vector>

#include "kernels/common/matmul.h"
#include "kernels/common/simd-inl.h"
#include "kernels/experts/op.h"

HWY_BEFORE_NAMESPACE();
namespace seacliff::experts {
namespace HWY_NAMESPACE {
using namespace seacliff::HWY_NAMESPACE;  // NOLINT: the frame of every cpu row

// h = silu(min(g, limit)) * clamp(u) * weight for `count` values of a tile; g and u round to bf16.
void Activate(const float* g, const float* u, int64_t count, float limit, float weight, Bf16* h) {
  const VF top = hn::Set(kF32, limit), bottom = hn::Set(kF32, -limit), one = hn::Set(kF32, 1.0f);
  alignas(64) float values[kTileRows];
  for (int64_t i = 0; i < kTileRows; i += Lanes()) {
    const VF gate = hn::Min(RoundBf16(hn::Load(kF32, g + i)), top);
    const VF up = hn::Max(hn::Min(RoundBf16(hn::Load(kF32, u + i)), top), bottom);
    const VF silu = hn::Div(gate, hn::Add(one, hn::Exp(kF32, hn::Neg(gate))));
    hn::Store(hn::Mul(hn::Mul(silu, up), hn::Set(kF32, weight)), kF32, values + i);
  }
  for (int64_t i = 0; i < count; ++i) h[i] = ToBf16(values[i]);
}

// sum[i] += y[i] rounded to bf16, 64 values.
void AddRounded(const float* y, float* sum) {
  for (int64_t i = 0; i < kTileRows; i += Lanes()) {
    hn::StoreU(hn::Add(hn::LoadU(kF32, sum + i), RoundBf16(hn::LoadU(kF32, y + i))), kF32, sum + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seacliff::experts
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seacliff::experts {
namespace {

HWY_EXPORT(Activate);
HWY_EXPORT(AddRounded);

// Assignments of tokens to experts, sorted by expert and then by token; the shared expert is last.
// Segment i of the assignments is experts[i]'s.
struct Plan {
  std::vector<const ExpertWeights*> experts;
  std::vector<Segment> segments;
  std::vector<int32_t> tokens;
  std::vector<float> weights;

  explicit Plan(const ExpertsArgs& a) {
    const int64_t count = a.x.shape[0], picks = a.picks.shape[1];
    std::vector<int64_t> next(a.experts.size() + 1, 0);
    for (int64_t i = 0; i < count * picks; ++i) ++next[static_cast<size_t>(a.picks.data[i]) + 1];
    for (size_t e = 0; e < a.experts.size(); ++e) {
      if (next[e + 1] > 0) Add(&a.experts[e], next[e], next[e + 1]);
      next[e + 1] += next[e];
    }
    if (a.shared.gate && count > 0) Add(&a.shared, count * picks, count);
    tokens.resize(segments.empty() ? 0 : segments.back().begin + segments.back().count);
    weights.resize(tokens.size(), 1.0f);
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t i = 0; i < picks; ++i) {
        const auto to = static_cast<size_t>(next[static_cast<size_t>(a.picks(t, i))]++);
        tokens[to] = static_cast<int32_t>(t);
        weights[to] = a.weights(t, i);
      }
    }
    for (size_t i = count * picks; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(i) - static_cast<int32_t>(count * picks);
    }
  }

 private:
  void Add(const ExpertWeights* expert, int64_t begin, int64_t count) {
    experts.push_back(expert);
    segments.push_back({begin, count});
  }
};

// h[row, :] of every assignment.
void GateAndUp(ThreadPool& pool, const ExpertsArgs& a, const Plan& plan, const MatMulInput& x,
               const Act<2>& h) {
  const int64_t inter = h.shape[1], tiles = (inter + kTileRows - 1) / kTileRows;
  const auto activate = HWY_DYNAMIC_DISPATCH(Activate);
  pool.For(static_cast<int64_t>(plan.experts.size()) * tiles, 1, [&](int64_t begin, int64_t end) {
    alignas(64) thread_local float gate[kMaxPartRows * kTileRows], up[kMaxPartRows * kTileRows];
    for (int64_t piece = begin; piece < end; ++piece) {
      const ExpertWeights& expert = *plan.experts[static_cast<size_t>(piece / tiles)];
      const int64_t tile = piece % tiles, width = std::min(kTileRows, inter - tile * kTileRows);
      ForParts(x, plan.segments[static_cast<size_t>(piece / tiles)], [&](Segment part) {
        MultiplyTile(expert.gate, tile, x, part, gate);
        MultiplyTile(expert.up, tile, x, part, up);
        for (int64_t i = 0; i < part.count; ++i) {
          const int64_t row = part.begin + i;
          activate(gate + i * kTileRows, up + i * kTileRows, width, a.limit,
                   plan.weights[static_cast<size_t>(row)],
                   static_cast<Bf16*>(h.data) + row * inter + tile * kTileRows);
        }
      });
    }
  });
}

// y[t, :] = sum of the experts' outputs: a tile of columns is one thread's, which takes the experts
// in order.
void DownAndSum(ThreadPool& pool, const ExpertsArgs& a, const Plan& plan, const MatMulInput& h) {
  const int64_t tokens = a.x.shape[0], dim = a.x.shape[1];
  const auto add = HWY_DYNAMIC_DISPATCH(AddRounded);
  pool.For((dim + kTileRows - 1) / kTileRows, 1, [&](int64_t begin, int64_t end) {
    alignas(64) thread_local float y[kMaxPartRows * kTileRows];
    thread_local std::vector<float> sums;
    for (int64_t tile = begin; tile < end; ++tile) {
      sums.assign(static_cast<size_t>(tokens * kTileRows), 0.0f);
      for (size_t e = 0; e < plan.experts.size(); ++e) {
        ForParts(h, plan.segments[e], [&](Segment part) {
          MultiplyTile(plan.experts[e]->down, tile, h, part, y);
          for (int64_t i = 0; i < part.count; ++i) {
            const int32_t token = plan.tokens[static_cast<size_t>(part.begin + i)];
            add(y + i * kTileRows, sums.data() + token * kTileRows);
          }
        });
      }
      const int64_t width = std::min(kTileRows, dim - tile * kTileRows);
      for (int64_t t = 0; t < tokens; ++t) {
        StoreValues(sums.data() + t * kTileRows, width, a.y, t * dim + tile * kTileRows);
      }
    }
  });
}

}  // namespace

bool CpuTakes(const ExpertsArgs& a) {
  return a.experts.front().gate.layout == WeightLayout::kTiles && !a.x.exact();
}

void Cpu(Context& k, const ExpertsArgs& a) {
  const Plan plan(a);
  if (plan.experts.empty()) return;  // no tokens
  const int64_t inter = plan.experts.front()->gate.rows;
  const auto rows = static_cast<int64_t>(plan.tokens.size());
  thread_local MatMulInput x, h;
  thread_local std::vector<Bf16> hidden;
  hidden.resize(static_cast<size_t>(rows * inter));
  const Act<2> h_act(hidden.data(), DType::kBf16, {rows, inter});
  x.Prepare(k.pool(), a.x, true, plan.segments, plan.tokens);
  GateAndUp(k.pool(), a, plan, x, h_act);
  h.Prepare(k.pool(), h_act, true, plan.segments);
  DownAndSum(k.pool(), a, plan, h);
}

}  // namespace seacliff::experts
#endif
