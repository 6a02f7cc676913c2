// What the two CUDA paths of experts share: where the weights are, the activation, pieces of the
// workspace.
#pragma once

#include "kernels/common/cuda.cuh"
#include "kernels/experts/op.h"

namespace seacliff::experts {
namespace {

using namespace seacliff::cuda;  // NOLINT: the frame of every CUDA row

// w1, w3, w2 of an expert.
struct Pointers {
  const uint8_t* data[3];
  const uint8_t* scales[3];
};
struct AllPointers {
  Pointers of[kCudaMostExperts + 1];  // the shared expert stands behind the routed ones
};
static_assert(sizeof(AllPointers) < 32000, "parameters of a launch");

inline AllPointers PointersOf(const ExpertsArgs& a) {
  AllPointers pointers;
  const auto fill = [](const ExpertWeights& w, Pointers* to) {
    const Matrix* matrices[3] = {&w.gate, &w.up, &w.down};
    for (int i = 0; i < 3; ++i) {
      to->data[i] = static_cast<const uint8_t*>(matrices[i]->data);
      to->scales[i] = reinterpret_cast<const uint8_t*>(matrices[i]->scales);
    }
  };
  for (size_t e = 0; e < a.experts.size(); ++e) fill(a.experts[e], &pointers.of[e]);
  fill(a.shared, &pointers.of[a.experts.size()]);
  return pointers;
}

// Sizes and arguments that all kernels take; `slots` of the routed experts come first, then one for
// each token of the shared expert.
struct Common {
  int32_t tokens, picks, experts, dim, inter;
  int32_t slots;         // tokens * picks
  int32_t shared_tiles;  // of slots of the shared expert
  float limit;
  const Bf16* x;
  Bf16* y;
  const int32_t* picked;
  int64_t picked_stride;
  const float* weights;
  int64_t weights_stride;
};

inline Common CommonOf(const ExpertsArgs& a, int64_t shared_tile_slots) {
  const int64_t tokens = a.x.shape[0], picks = a.picks.shape[1];
  Common c;
  c.tokens = static_cast<int32_t>(tokens);
  c.picks = static_cast<int32_t>(picks);
  c.experts = static_cast<int32_t>(a.experts.size());
  c.dim = static_cast<int32_t>(a.x.shape[1]);
  c.inter = static_cast<int32_t>(a.experts.front().gate.rows);
  c.slots = static_cast<int32_t>(tokens * picks);
  c.shared_tiles = a.shared.gate ? static_cast<int32_t>(CeilDiv(tokens, shared_tile_slots)) : 0;
  c.limit = a.limit;
  c.x = static_cast<const Bf16*>(a.x.data);
  c.y = static_cast<Bf16*>(a.y.data);
  c.picked = a.picks.data;
  c.picked_stride = a.picks.stride[0];
  c.weights = a.weights.data;
  c.weights_stride = a.weights.stride[0];
  return c;
}

__device__ inline float Activate(float gate, float up, float limit, float weight) {
  const float g = fminf(RoundBf16(gate), limit);
  const float u = fmaxf(fminf(RoundBf16(up), limit), -limit);
  const float silu = g / (1.0f + expf(-g));
  return silu * u * weight;
}

// Hands out pieces of the workspace.
class Pieces {
 public:
  template <typename T>
  int64_t Take(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += CeilDiv(count * static_cast<int64_t>(sizeof(T)), 256) * 256;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

}  // namespace
}  // namespace seacliff::experts
