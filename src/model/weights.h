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
  bool quantise_o = false;  // o goes through e4m3 before wo_a: a choice, not the checkpoint's
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
  int64_t first_id = 0;  // whose row is the first of embed
  NormWeight norm;
  MhcWeights hc_head;
  std::vector<LayerWeights> layers;
  std::vector<MtpWeights> mtp;  // empty, or one
};

// Which of the equal parts of a model: the rank's, of as many as there are ranks.
struct Slice {
  int64_t rank = 0, size = 1;
};

// Views into `checkpoint`, which must outlive them, as must `frequencies`: [0] for window-only
// layers, [1] for compressed ones. `quantise_o` is every layer's. `config` is the whole model's;
// RankConfig (model/slice.h) must take it. Of a part of a model, matrices cut by columns have gaps
// (Matrix::pitch).
ModelWeights BindWeights(const Checkpoint& checkpoint, const ModelConfig& config,
                         const std::vector<float> (&frequencies)[2], bool quantise_o = false,
                         Slice slice = {});

// Calls visit(Matrix&) or visit(View<const T, N>&) for everything a model reads, in the order in
// which a step does.
template <typename Visit>
void VisitWeights(MhcWeights& w, const Visit& visit) {
  visit(w.fn);
  visit(w.base);
  visit(w.scale);
}
template <typename Visit>
void VisitWeights(CompressorWeights& w, const Visit& visit) {
  visit(w.keys);
  visit(w.gates);
  visit(w.ape);
  visit(w.norm);
}
template <typename Visit>
void VisitWeights(ExpertWeights& w, const Visit& visit) {
  visit(w.gate);
  visit(w.up);
  visit(w.down);
}
template <typename Visit>
void VisitWeights(LayerWeights& layer, const Visit& visit) {
  VisitWeights(layer.hc_attn, visit);
  visit(layer.attn_norm);
  AttentionWeights& a = layer.attn;
  visit(a.frequencies);
  for (Matrix* m : {&a.wq_a, &a.wq_b, &a.wkv, &a.wo_a, &a.wo_b}) visit(*m);
  visit(a.q_norm);
  visit(a.kv_norm);
  visit(a.sink);
  VisitWeights(a.compressor, visit);
  visit(a.index_wq_b);
  visit(a.index_weights);
  VisitWeights(a.index_compressor, visit);
  VisitWeights(layer.hc_ffn, visit);
  visit(layer.ffn_norm);
  visit(layer.moe.gate);
  visit(layer.moe.bias);
  visit(layer.moe.table);
  for (ExpertWeights& e : layer.moe.experts) VisitWeights(e, visit);
  VisitWeights(layer.moe.shared, visit);
}
template <typename Visit>
void VisitWeights(ModelWeights& w, const Visit& visit) {
  visit(w.embed);
  for (LayerWeights& layer : w.layers) VisitWeights(layer, visit);
  visit(w.head);
  visit(w.norm);
  VisitWeights(w.hc_head, visit);
  for (MtpWeights& mtp : w.mtp) {
    VisitWeights(mtp.layer, visit);
    visit(mtp.e_proj);
    visit(mtp.h_proj);
    visit(mtp.enorm);
    visit(mtp.hnorm);
    visit(mtp.norm);
    VisitWeights(mtp.hc_head, visit);
  }
}

}  // namespace seacliff
