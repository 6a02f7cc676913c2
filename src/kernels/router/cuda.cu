// CUDA row of router: the logits as a product of linear, then a warp for each token's choice.
#include <cmath>

#include "kernels/common/matmul.cuh"
#include "kernels/router/op.h"

namespace seacliff::router {
namespace {

using namespace seacliff::cuda;  // NOLINT: the frame of every CUDA row

constexpr int kThreads = 128, kTokens = kThreads / kWarp;

struct Choice {
  const float* logits;  // [tokens, experts]
  int32_t tokens, experts, picks;
  const float* bias;
  const int64_t* table;
  const int32_t* ids;
  float route_scale;
  int32_t* picked;
  float* weights;
  float* margin;
};

// The largest of a warp's scores and whose it is, the lower expert on a tie. Every lane gets both.
__device__ inline void WarpBest(float& score, int& expert) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, score, offset);
    const int who = __shfl_xor_sync(0xffffffffu, expert, offset);
    if (other > score || (other == score && who < expert)) {
      score = other;
      expert = who;
    }
  }
}

// The best of the scores that are left.
__device__ inline void Best(const float* scores, int experts, int lane, float& score, int& expert) {
  score = -INFINITY;
  expert = experts - 1;
  for (int e = lane; e < experts; e += kWarp) {
    if (scores[e] > score) {
      score = scores[e];
      expert = e;
    }
  }
  WarpBest(score, expert);
}

__global__ void __launch_bounds__(kThreads) ChooseKernel(Choice c) {
  // ---- shared memory: for each token the experts' affinities and scores ----
  extern __shared__ float shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kTokens + warp;
  if (token >= c.tokens) return;  // whole warps, and no block-wide barrier follows
  float* affinity = shared + static_cast<int64_t>(warp) * 2 * c.experts;
  float* scores = affinity + c.experts;

  // ---- load ----
  for (int e = lane; e < c.experts; e += kWarp) {
    const float logit = c.logits[token * c.experts + e];
    affinity[e] = sqrtf(logit > 20 ? logit : log1pf(expf(logit)));
    if (c.table == nullptr) scores[e] = __fadd_rn(affinity[e], c.bias[e]);
  }
  __syncwarp();

  // ---- compute and store ----
  int32_t* picked = c.picked + token * c.picks;
  float sum = 0, last = 0;
  for (int i = 0; i < c.picks; ++i) {
    int expert = 0;
    if (c.table != nullptr) {
      expert = static_cast<int>(c.table[int64_t{c.ids[token]} * c.picks + i]);
    } else {
      Best(scores, c.experts, lane, last, expert);
      __syncwarp();
      if (lane == 0) scores[expert] = -INFINITY;
      __syncwarp();
    }
    sum += affinity[expert];
    if (lane == 0) picked[i] = expert;
  }
  if (c.margin != nullptr) {
    float margin = INFINITY;
    if (c.table == nullptr && c.picks < c.experts) {
      float next = 0;
      int expert = 0;
      Best(scores, c.experts, lane, next, expert);
      margin = last - next;
    }
    if (lane == 0) c.margin[token] = margin;
  }
  __syncwarp();  // lane 0's picks are there for all
  for (int i = lane; i < c.picks; i += kWarp) {
    c.weights[token * c.picks + i] = sum > 0 ? affinity[picked[i]] / sum * c.route_scale : 0;
  }
}

}  // namespace

void Cuda(Context& k, const RouterArgs& a) {
  const int64_t tokens = a.x.shape[0], experts = a.gate.rows;
  if (tokens == 0) return;
  auto* logits = static_cast<float*>(k.device()->Workspace(tokens * experts * 4));
  if (logits == nullptr) return;  // the device holds the error
  Product p;
  p.w = a.gate;
  p.x = static_cast<const Bf16*>(a.x.data);
  p.x_stride = a.gate.cols;
  p.tokens = tokens;
  p.out = logits;
  p.out_stride = experts;
  p.f32 = true;
  Multiply(k, "router", p, false);  // a gate that is not kMxfp4 leaves the workspace alone

  Choice c;
  c.logits = logits;
  c.tokens = static_cast<int32_t>(tokens);
  c.experts = static_cast<int32_t>(experts);
  c.picks = static_cast<int32_t>(a.picks.shape[1]);
  c.bias = a.bias.data;
  c.table = a.table.data;
  c.ids = a.ids.data;
  c.route_scale = a.route_scale;
  c.picked = a.picks.data;
  c.weights = a.weights.data;
  c.margin = a.margin.data;
  Launch(k, "router", ChooseKernel, dim3(static_cast<uint32_t>(CeilDiv(tokens, kTokens))), kThreads,
         experts * 2 * 4 * kTokens, c);
}

}  // namespace seacliff::router
