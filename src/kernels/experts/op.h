// experts: the routed experts of each token and the shared expert (spec/model.md 2.11 steps 4, 5).
//
//   g = w1 x', u = w3 x';  u = clamp(u, -limit, limit), g = min(g, limit)
//   h = silu(g) * u * weight;  y[t, :] = sum over picks of w2 h', plus the shared expert's with
//   weight 1
//
// x' and h' are rounded to e4m3 (1 x 128) in checkpoint numerics, where g, u, h and each expert's
// output are also rounded to bf16; the sum over experts is f32, rounded once.
// x, y: [tokens, dim], bf16 or f32. picks, weights: [tokens, picks] from router.
// On a GPU a token's bits are the same beside any others as long as its kernel for few tokens takes
// them all: of six picks 150 where a block can have half of 228 KB of shared memory, 100 where it
// has 99 KB.
// experts: the routed experts, each w1, w3 [inter, dim] and w2 [dim, inter]; shared: one more.
#pragma once

#include <span>

#include "kernels/context.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

struct ExpertWeights {
  Matrix gate, up, down;  // w1, w3, w2
};

struct ExpertsArgs {
  Act<2> x;
  std::span<const ExpertWeights> experts;
  ExpertWeights shared;
  View<const int32_t, 2> picks;
  View<const float, 2> weights;
  float limit;
  Act<2> y;
};

void Experts(Context& k, const ExpertsArgs& a);

namespace experts {
bool CpuTakes(const ExpertsArgs& a);  // packed weights, bf16
void Cpu(Context& k, const ExpertsArgs& a);
inline constexpr size_t kCudaMostExperts = 640;  // whose pointers travel with one launch
inline constexpr int64_t kCudaSegment = 2048;    // columns that one token's items have of w1, w3
bool CudaTakes(const ExpertsArgs& a);            // FP8 or MXFP4 as stored, bf16, dims % 32 == 0
// Bytes of workspace that Cuda asks for; more of anything asks for no less (model/memory_plan.h).
int64_t CudaWorkspace(int64_t tokens, int64_t picks, int64_t experts, int64_t dim, int64_t inter);
void Cuda(Context& k, const ExpertsArgs& a);
void Ref(Context& k, const ExpertsArgs& a);
}  // namespace experts

}  // namespace seacliff
