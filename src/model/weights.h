// The model's weights as the forward pass reads them: views into a checkpoint's memory, by layer.
#pragma once

#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/model_config.h"
#include "kernels/experts/op.h"
#include "kernels/mhc_boundary/op.h"
#include "tensor/matrix.h"
#include "tensor/view.h"

namespace seacliff {

using NormWeight = View<const Bf16, 1>;

struct CompressorWeights {
  Matrix keys, gates;        // wkv, wgate
  View<const float, 2> ape;  // [ratio, width]
  NormWeight norm;
};

struct AttentionWeights {
  int64_t ratio = 0;
  View<const float, 1> frequencies;
  Matrix wq_a, wq_b, wkv, wo_a, wo_b;
  NormWeight q_norm, kv_norm;
  View<const float, 1> sink;
  CompressorWeights compressor;        // ratio != 0
  Matrix index_wq_b, index_weights;    // ratio == 4
  CompressorWeights index_compressor;  // ratio == 4
};

struct MoeWeights {
  Matrix gate;
  View<const float, 1> bias;     // scored layers
  View<const int64_t, 2> table;  // hash layers
  std::vector<ExpertWeights> experts;
  ExpertWeights shared;
};

struct LayerWeights {
  MhcWeights hc_attn, hc_ffn;
  NormWeight attn_norm, ffn_norm;
  AttentionWeights attn;
  MoeWeights moe;
};

struct MtpWeights {
  LayerWeights layer;
  Matrix e_proj, h_proj;
  NormWeight enorm, hnorm, norm;
  MhcWeights hc_head;
};

struct ModelWeights {
  Matrix embed, head;
  NormWeight norm;
  MhcWeights hc_head;
  std::vector<LayerWeights> layers;
  std::vector<MtpWeights> mtp;  // empty, or one
};

// Views into `checkpoint`, which must outlive them, as must `frequencies`: [0] for window-only
// layers, [1] for compressed ones.
ModelWeights BindWeights(const Checkpoint& checkpoint, const ModelConfig& config,
                         const std::vector<float> (&frequencies)[2]);

}  // namespace seacliff
