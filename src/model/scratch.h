// Activations of one step: one allocation each, sized for the largest step, reused by every layer.
#pragma once

#include "config/model_config.h"
#include "tensor/buffer.h"
#include "tensor/view.h"

namespace seacliff {

// The activations as the forward pass names them, for a step of `tokens`.
struct Activations {
  Act<3> streams;      // [tokens, streams, dim]
  View<float, 2> mix;  // [tokens, streams + streams^2]
  Act<2> x, y;         // [tokens, dim]: input and output of a sub-block
  Act<2> q_low;        // [tokens, q_rank]
  Act<2> q;            // [tokens, heads * head_dim]
  Act<2> kv;           // [tokens, head_dim]
  Act<2> o;            // [tokens, heads * head_dim]
  Act<2> z;            // [tokens, o_groups * o_rank]
  Act<2> keys, gates;  // [tokens, width] f32: compressor projections
  Act<2> index_keys, index_gates;
  Act<2> index_q;                              // [tokens, index_heads * index_dim]
  Act<2> index_weights;                        // [tokens, index_heads]
  View<int32_t, 2> index_picks;                // [tokens, index_topk]
  View<int32_t, 2> picks;                      // [tokens, picks]
  View<float, 1> expert_margin, index_margin;  // [tokens], or empty: wanted by a trace
  View<float, 2> weights;                      // [tokens, picks]
};

class Scratch {
 public:
  Scratch(const ModelConfig& config, DType dtype, int64_t max_tokens, const Allocate& allocate);

  // Views for a step of `tokens` <= max_tokens; a layer of `ratio` sets the compressor widths.
  Activations For(int64_t tokens) const;

  int64_t max_tokens() const { return max_tokens_; }
  // keys, gates, index_keys and index_gates reshaped for a layer's ratio.
  static void SetRatio(const ModelConfig& config, int64_t ratio, Activations& s);

 private:
  const ModelConfig& config_;
  DType dtype_;
  int64_t max_tokens_;
  Buffer streams_, mix_, x_, y_, q_low_, q_, kv_, o_, z_, keys_, gates_, index_keys_, index_gates_,
      index_q_, index_weights_, index_picks_, picks_, weights_;
};

}  // namespace seacliff
