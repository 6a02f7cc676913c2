// Allocation of a step's activations.
#include "model/scratch.h"

namespace seacliff {

Scratch::Scratch(const ModelConfig& c, DType dtype, int64_t max_tokens, const Allocate& allocate)
    : config_(c), dtype_(dtype), max_tokens_(max_tokens) {
  const auto act = [&](int64_t width) { return allocate(max_tokens * width * SizeOf(dtype)); };
  const auto f32 = [&](int64_t width) { return allocate(max_tokens * width * 4); };
  streams_ = act(c.streams * c.dim);
  mix_ = f32(c.streams + c.streams * c.streams);
  x_ = act(c.dim);
  y_ = act(c.dim);
  q_low_ = act(c.q_rank);
  q_ = act(c.heads * c.head_dim);
  kv_ = act(c.head_dim);
  o_ = act(c.heads * c.head_dim);
  z_ = act(c.o_groups * c.o_rank);
  keys_ = f32(2 * c.head_dim);
  gates_ = f32(2 * c.head_dim);
  index_keys_ = f32(2 * c.index_dim);
  index_gates_ = f32(2 * c.index_dim);
  index_q_ = act(c.index_heads * c.index_dim);
  index_weights_ = act(c.index_heads);
  index_picks_ = f32(c.index_topk);
  picks_ = f32(c.picks);
  weights_ = f32(c.picks);
}

Activations Scratch::For(int64_t tokens) const {
  const ModelConfig& c = config_;
  const auto act = [&](const Buffer& b, int64_t width) {
    return Act<2>(b.data(), dtype_, {tokens, width});
  };
  Activations s;
  s.streams = Act<3>(streams_.data(), dtype_, {tokens, c.streams, c.dim});
  s.mix = mix_.As<float, 2>({tokens, c.streams + c.streams * c.streams});
  s.x = act(x_, c.dim);
  s.y = act(y_, c.dim);
  s.q_low = act(q_low_, c.q_rank);
  s.q = act(q_, c.heads * c.head_dim);
  s.kv = act(kv_, c.head_dim);
  s.o = act(o_, c.heads * c.head_dim);
  s.z = act(z_, c.o_groups * c.o_rank);
  s.keys = Act<2>(keys_.data(), DType::kF32, {tokens, 0});
  s.gates = Act<2>(gates_.data(), DType::kF32, {tokens, 0});
  s.index_keys = Act<2>(index_keys_.data(), DType::kF32, {tokens, 0});
  s.index_gates = Act<2>(index_gates_.data(), DType::kF32, {tokens, 0});
  s.index_q = act(index_q_, c.index_heads * c.index_dim);
  s.index_weights = act(index_weights_, c.index_heads);
  s.index_picks = index_picks_.As<int32_t, 2>({tokens, c.index_topk});
  s.picks = picks_.As<int32_t, 2>({tokens, c.picks});
  s.weights = weights_.As<float, 2>({tokens, c.picks});
  return s;
}

void Scratch::SetRatio(const ModelConfig& config, int64_t ratio, Activations& s) {
  const int64_t overlap = ModelConfig::Overlap(ratio);
  s.keys.shape[1] = s.gates.shape[1] = overlap * config.head_dim;
  s.index_keys.shape[1] = s.index_gates.shape[1] = overlap * config.index_dim;
}

}  // namespace seacliff
