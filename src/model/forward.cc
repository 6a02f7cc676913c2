// A layer: two sub-blocks between residual streams; all layers; and the MTP layer's input.
#include "model/forward.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/common/mhc.h"
#include "kernels/embed/op.h"
#include "kernels/linear/op.h"
#include "kernels/mhc_boundary/op.h"
#include "kernels/mhc_head/op.h"
#include "kernels/mtp_join/op.h"
#include "kernels/rms_norm/op.h"
#include "kernels/router/op.h"
#include "model/model.h"

namespace seacliff {
namespace {

// The streams take in y (unless it is the very first sub-block) and give the next normed x.
void Boundary(Context& k, const ModelConfig& c, const MhcWeights& hc, const NormWeight& norm,
              bool first, Activations& s) {
  MhcBoundary(k,
              {first ? Act<2>() : s.y, s.streams, s.mix, hc, norm, static_cast<float>(c.norm_eps),
               static_cast<float>(c.hc_eps), c.sinkhorn_iters, s.x});
}

void WantMargins(const ForwardTrace& trace, int64_t i, Activations& s) {
  if (!trace.expert_margin) return;
  s.expert_margin = trace.expert_margin[i];
  s.index_margin = trace.index_margin[i];
  for (int64_t t = 0; t < s.index_margin.shape[0]; ++t) s.index_margin(t) = INFINITY;
}

// The kind of a layer, for profiles.
const char* PartOf(const LayerWeights& w) {
  const bool hash = static_cast<bool>(w.moe.table);
  if (w.attn.ratio == 4) return hash ? "ratio 4, hash" : "ratio 4";
  if (w.attn.ratio == 128) return hash ? "ratio 128, hash" : "ratio 128";
  return hash ? "window, hash" : "window";
}

void CopyToHost(Context& k, void* to, const void* from, int64_t bytes) {
  if (k.device() != nullptr) return k.device()->Download(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

// The streams of the traced token after layer i: what the next boundary will make of them.
void TraceStreams(Context& k, const ForwardTrace& trace, int64_t i, const Activations& s) {
  const int64_t t = trace.token, n = s.streams.shape[1], dim = s.streams.shape[2];
  const DType dtype = s.x.dtype;
  std::vector<float> streams(static_cast<size_t>(n * dim)), y(static_cast<size_t>(dim));
  std::vector<float> mix(static_cast<size_t>(n + n * n));
  CopyToHost(k, streams.data(), s.streams.Rows(t, 1).data, n * dim * SizeOf(dtype));
  CopyToHost(k, y.data(), s.y.Rows(t, 1).data, dim * SizeOf(dtype));
  CopyToHost(k, mix.data(), &s.mix(t, 0), (n + n * n) * SizeOf(DType::kF32));
  const Act<3> copy(streams.data(), dtype, {1, n, dim});
  MhcPost({y.data(), dtype, {1, dim}}, copy, {mix.data(), {1, n + n * n}}, 0);
  for (int64_t d = 0; d < n * dim; ++d) trace.layers[i].data[d] = copy.Load(d);
}

}  // namespace

void MixtureOfExperts(Context& k, Communicator& comm, const ModelConfig& c, const MoeWeights& w,
                      const Batch& b, Activations& s) {
  Router(k, {s.x, w.gate, w.bias, w.table, b.ids, static_cast<float>(c.route_scale), s.picks,
             s.weights, s.expert_margin});
  Experts(k,
          {s.x, w.experts, w.shared, s.picks, s.weights, static_cast<float>(c.swiglu_limit), s.y});
  comm.AllReduce(k, s.y);
}

void Block(Context& k, Communicator& comm, const ModelConfig& c, const LayerWeights& w,
           const Batch& b, const LayerCache& cache, bool first, Activations& s) {
  Boundary(k, c, w.hc_attn, w.attn_norm, first, s);
  Attention(k, comm, c, w.attn, b, cache, s);
  Boundary(k, c, w.hc_ffn, w.ffn_norm, false, s);
  MixtureOfExperts(k, comm, c, w.moe, b, s);
}

void Trunk(Context& k, Communicator& comm, const ModelConfig& c, const ModelWeights& w,
           const Batch& b, const CacheStore& cache, const ForwardTrace* trace, Activations& s) {
  Embed(k, {b.ids, w.embed, s.streams, w.first_id});
  comm.AllReduce(k, s.streams.Reshape<2>({b.tokens() * c.streams, c.dim}));
  for (int64_t i = 0; i < c.layers; ++i) {
    if (trace != nullptr) WantMargins(*trace, i, s);
    const LayerWeights& layer = w.layers[static_cast<size_t>(i)];
    k.set_part(PartOf(layer));
    Block(k, comm, c, layer, b, cache.layer(i), i == 0, s);
    if (trace != nullptr && trace->layers) TraceStreams(k, *trace, i, s);
  }
  k.set_part("");
}

void JoinNext(Context& k, Communicator& comm, const ModelConfig& c, const ModelWeights& w,
              View<const int32_t, 1> next_ids, Activations& s, void* normed) {
  const auto eps = static_cast<float>(c.norm_eps);
  const MtpWeights& m = w.mtp.front();
  const int64_t tokens = s.x.shape[0];
  const Act<2> next = s.y, streams = s.streams.Reshape<2>({tokens * c.streams, c.dim});
  const Act<2> hidden(normed, s.x.dtype, streams.shape);
  Embed(k, {next_ids, w.embed, next.Reshape<3>({tokens, 1, c.dim}), w.first_id});
  comm.AllReduce(k, next);
  RmsNorm(k, {next, m.enorm, eps, next});
  Linear(k, {next, m.e_proj, true, s.x});
  RmsNorm(k, {streams, m.hnorm, eps, hidden});
  Linear(k, {hidden, m.h_proj, true, streams});
  MtpJoin(k, {s.x, s.streams});
}

void Head(Context& k, Communicator& comm, const ModelConfig& c, const Batch& b,
          const MhcWeights& hc, const NormWeight& norm, const Matrix& head, Activations& s, void* x,
          LogitsRoom logits) {
  const int64_t rows = b.logit_rows.shape[0], all = c.vocab_size * comm.size();
  const Act<2> collapsed(x, s.x.dtype, {rows, c.dim});
  MhcHead(k, {s.y, s.streams, s.mix, hc, norm, static_cast<float>(c.norm_eps),
              static_cast<float>(c.hc_eps), b.logit_rows, collapsed});
  Linear(k, {collapsed, head, false, Act<2>(logits.part, DType::kF32, {rows, c.vocab_size})});
  comm.Gather(k, {logits.part, {rows, c.vocab_size}}, {logits.all, {rows, all}});
}

}  // namespace seacliff
