// A layer: two sub-blocks between residual streams.
#include "model/forward.h"

#include "kernels/linear/op.h"
#include "kernels/mhc_boundary/op.h"
#include "kernels/mhc_head/op.h"
#include "kernels/router/op.h"

namespace seacliff {
namespace {

// The streams take in y (unless it is the very first sub-block) and give the next normed x.
void Boundary(Context& k, const ModelConfig& c, const MhcWeights& hc, const NormWeight& norm,
              bool first, Activations& s) {
  MhcBoundary(k,
              {first ? Act<2>() : s.y, s.streams, s.mix, hc, norm, static_cast<float>(c.norm_eps),
               static_cast<float>(c.hc_eps), c.sinkhorn_iters, s.x});
}

}  // namespace

void MixtureOfExperts(Context& k, const ModelConfig& c, const MoeWeights& w, const Batch& b,
                      Activations& s) {
  Router(k, {s.x, w.gate, w.bias, w.table, b.ids, static_cast<float>(c.route_scale), s.picks,
             s.weights, s.expert_margin});
  Experts(k,
          {s.x, w.experts, w.shared, s.picks, s.weights, static_cast<float>(c.swiglu_limit), s.y});
}

void Block(Context& k, const ModelConfig& c, const LayerWeights& w, const Batch& b,
           const LayerCache& cache, bool first, Activations& s) {
  Boundary(k, c, w.hc_attn, w.attn_norm, first, s);
  Attention(k, c, w.attn, b, cache, s);
  Boundary(k, c, w.hc_ffn, w.ffn_norm, false, s);
  MixtureOfExperts(k, c, w.moe, b, s);
}

void Head(Context& k, const ModelConfig& c, const Batch& b, const MhcWeights& hc,
          const NormWeight& norm, const Matrix& head, Activations& s, void* x, float* logits) {
  const int64_t rows = b.logit_rows.shape[0];
  const Act<2> collapsed(x, s.x.dtype, {rows, c.dim});
  MhcHead(k, {s.y, s.streams, s.mix, hc, norm, static_cast<float>(c.norm_eps),
              static_cast<float>(c.hc_eps), b.logit_rows, collapsed});
  Linear(k, {collapsed, head, false, Act<2>(logits, DType::kF32, {rows, c.vocab_size})});
}

}  // namespace seacliff
